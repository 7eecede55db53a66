import { expect } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { FleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { untilRung } from "./bell.ts";
import type { TestDatabase } from "./postgres.ts";
import { spawnKilledWorker } from "./spawn-killed-worker.ts";
import { startTestWorker } from "./test-worker.ts";

/** Runs a worker that dies at its n-th boundary; undefined when the pod's work ended before it got there. */
export async function workAndDie(db: TestDatabase, podId: string, nth: number): Promise<string | undefined> {
  return await spawnKilledWorker(db, nth, () => isIdle(db, podId));
}

/** Lets a worker that nobody kills carry a pod's work to its end. */
export async function finishWork(db: TestDatabase, fleet: FleetView, podId: string): Promise<void> {
  const worker = startTestWorker(db.system, fleet);
  try {
    await untilRung(`the end of the work of pod ${podId}`, db.system, () => isIdle(db, podId));
  } finally {
    await worker.stop();
  }
}

/** Whether no task of the pod is left to do. */
async function isIdle(db: TestDatabase, podId: string): Promise<boolean> {
  const open = await db.system.query(sql`
    SELECT FROM cloud_pod_provisioning_tasks WHERE pod_id = ${podId} AND state NOT IN ('succeeded', 'failed', 'cancelled')`);
  return open.length === 0;
}

/** What hosts and quotas have given away is what pods have, no more and no less. */
export async function expectBooksBalanced(db: TestDatabase): Promise<void> {
  const [row] = await db.system.query<Record<string, bigint>>(sql`
    SELECT (SELECT count(*) FROM cloud_pods WHERE node_id IS NOT NULL) AS pods, (SELECT count(*) FROM node_claims) AS claimed,
      (SELECT sum(memory_allocated_mb) FROM node_capacity) AS "allocatedMb", (SELECT coalesce(sum(memory_mb), 0) FROM node_claims) AS "claimedMb",
      (SELECT sum(used_cloud_pods) FROM cloud_pod_quotas) AS "usedPods",
      (SELECT count(*) FROM cloud_pods WHERE status IN ('provisioning', 'active')) AS counted`);
  expect(row).toBeDefined();
  expect(row?.["claimed"]).toBe(row?.["pods"]);
  expect(row?.["allocatedMb"]).toBe(row?.["claimedMb"]);
  expect(row?.["usedPods"]).toBe(row?.["counted"]);
}
