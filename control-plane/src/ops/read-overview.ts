import { listPlans } from "../plans/resolve-plan.ts";
import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { readSnapshot } from "../scheduling/read-snapshot.ts";
import type { OverviewParts } from "./assemble-overview.ts";
import { countBackups } from "./read-backups.ts";
import { countPods, readOrphans } from "./read-containers.ts";
import { readControlPlane } from "./read-control-plane.ts";
import { countConditions, readWorstNodes } from "./read-core-nodes.ts";
import { readDrains } from "./read-drains.ts";
import { readFindings } from "./read-findings.ts";
import { readHostsBehind, readLastVerification, readMeteringLag, readRollUpState } from "./read-metering.ts";
import { readProvisioning } from "./read-provisioning.ts";
import { readQueues } from "./read-queues.ts";
import { readSecurity } from "./read-security.ts";

/** Reads everything of the overview from one snapshot of the database, so that its figures agree with each other. */
export async function readOverview(db: Database): Promise<OverviewParts> {
  return await db.transaction(
    async (tx) => {
      await tx.execute(sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`);
      return await readParts(tx);
    },
    { prepares: true },
  );
}

/** Sent together: on a transaction's connection all statements share one round trip. */
async function readParts(tx: Queryable): Promise<OverviewParts> {
  const [fleet, metering, work, rest] = await Promise.all([
    readFleet(tx),
    readMetering(tx),
    Promise.all([readQueues(tx), readProvisioning(tx), countPods(tx), countBackups(tx)]),
    Promise.all([readSecurity(tx), readOrphans(tx), readFindings(tx), readControlPlane(tx), readDrains(tx)]),
  ]);
  const [queues, provisioning, pods, backups] = work;
  const [security, orphans, findings, controlPlane, drains] = rest;
  return {
    ...fleet,
    ...metering,
    queues,
    provisioning,
    pods,
    backups,
    security,
    orphans,
    findings,
    controlPlane,
    drains,
  };
}

async function readFleet(tx: Queryable) {
  const [worstNodes, conditions, snapshot, plans] = await Promise.all([
    readWorstNodes(tx),
    countConditions(tx),
    readSnapshot(tx),
    listPlans(tx),
  ]);
  return { worstNodes, conditions, snapshot, plans };
}

async function readMetering(tx: Queryable) {
  const [lag, behind, rollUp, verification] = await Promise.all([
    readMeteringLag(tx),
    readHostsBehind(tx),
    readRollUpState(tx),
    readLastVerification(tx),
  ]);
  return { lag, behind, rollUp, verification };
}
