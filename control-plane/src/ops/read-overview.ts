import { listPlans } from "../plans/resolve-plan.ts";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
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

type Counts = Pick<OverviewParts, "pods" | "backups">;

const oneSnapshot = sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`;

/**
 * Reads everything of the overview from one snapshot of the database, so that its figures agree with each other. What
 * there is most of, which takes as long as all the rest, is counted at the same time on a second connection.
 */
export async function readOverview(db: Database): Promise<OverviewParts> {
  return await db.transaction(
    async (tx) => {
      await tx.execute(oneSnapshot);
      const [counts, parts] = await Promise.all([countBeside(db, tx), readParts(tx)]);
      return { ...parts, ...counts };
    },
    { prepares: true },
  );
}

/** On the snapshot of `tx`. Who holds a connection must not wait for another one: with none to spare on the same. */
async function countBeside(db: Database, tx: Transaction): Promise<Counts> {
  const { idleCount, totalCount, waitingCount, options } = db.pool;
  if (waitingCount > 0 || (idleCount === 0 && totalCount >= options.max)) return await readCounts(tx);
  const exporting = tx.query<{ snapshot: string }>(sql`SELECT pg_export_snapshot() AS snapshot`);
  const counting = db.transaction(
    async (beside) => {
      const [exported] = await exporting;
      if (exported === undefined) throw new Error("no snapshot was exported");
      // Not as statements of the transaction, which are prepared: this text is never the same again.
      await Promise.all([
        beside.client.query(oneSnapshot.text),
        beside.client.query(`SET TRANSACTION SNAPSHOT ${beside.client.escapeLiteral(exported.snapshot)}`),
      ]);
      return await readCounts(beside);
    },
    { prepares: true },
  );
  const [counts] = await Promise.all([counting, exporting]);
  return counts;
}

async function readCounts(tx: Queryable): Promise<Counts> {
  const [pods, backups] = await Promise.all([countPods(tx), countBackups(tx)]);
  return { pods, backups };
}

/** Sent together: on a transaction's connection all statements share one round trip. */
async function readParts(tx: Queryable): Promise<Omit<OverviewParts, keyof Counts>> {
  const [fleet, metering, work, rest] = await Promise.all([
    readFleet(tx),
    readMetering(tx),
    Promise.all([readQueues(tx), readProvisioning(tx)]),
    Promise.all([readSecurity(tx), readOrphans(tx), readFindings(tx), readControlPlane(tx), readDrains(tx)]),
  ]);
  const [queues, provisioning] = work;
  const [security, orphans, findings, controlPlane, drains] = rest;
  return { ...fleet, ...metering, queues, provisioning, security, orphans, findings, controlPlane, drains };
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
