import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import {
  countOversold,
  insertFleet,
  insertPods,
  insertTenants,
  type UnplacedPod,
} from "../../../test/support/placement-fleet.ts";
import type { ReplicaJob, ReplicaReport } from "../../../test/support/placing-replica.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";

const replicas = 4;
const program = join(import.meta.dirname, "../../../test/support/placing-replica.ts");

let db: TestDatabase;
let pods: UnplacedPod[];
/** Six nodes with room for ten pods each, and twice as many pods. */
beforeEach(async () => {
  db = await createTestDatabase();
  await insertFleet(db.system, { nodes: 6, cores: 10, memoryMb: 20_480, diskGb: 1_000 });
  const tenants = await insertTenants(db.system, 30);
  pods = await insertPods(db.system, [...tenants, ...tenants, ...tenants, ...tenants], {
    cores: 1,
    memoryMb: 1_024,
    diskGb: 10,
  });
});
afterEach(() => db.close());

async function race(claim: ReplicaJob["claim"]): Promise<ReplicaReport> {
  const reports = await Promise.all(
    Array.from({ length: replicas }, async (_, replica) => {
      const child = fork(program);
      try {
        await once(child, "message");
        child.send({
          apiUrl: db.apiUrl,
          claim,
          pods: pods.filter((_pod, index) => index % replicas === replica),
        } satisfies ReplicaJob);
        const [report] = await Promise.race([
          once(child, "message"),
          once(child, "exit").then(([code]) => Promise.reject(new Error(`a replica ended with ${code}`))),
        ]);
        return report as ReplicaReport; // the only message after the first
      } finally {
        child.kill();
      }
    }),
  );
  return reports.reduce((sum, report) => ({
    placed: sum.placed + report.placed,
    withoutCapacity: sum.withoutCapacity + report.withoutCapacity,
    guarded: sum.guarded + report.guarded,
  }));
}

async function dropGuards(): Promise<void> {
  await db.system.execute(sql`DROP TRIGGER node_capacity_not_oversold ON node_capacity`);
  await db.system.execute(sql`DROP TRIGGER storages_not_oversold ON storages`);
}

it("four racing replicas fill every node and oversell none", async () => {
  const report = await race("real");
  expect(report).toEqual({ placed: 60, withoutCapacity: 60, guarded: 0 });
  expect(await countOversold(db.system)).toEqual({ oversold: 0, differing: 0 });
});

it("the claim alone keeps them from overselling, without the database's guard", async () => {
  await dropGuards();
  expect(await race("real")).toMatchObject({ placed: 60, withoutCapacity: 60 });
  expect(await countOversold(db.system)).toEqual({ oversold: 0, differing: 0 });
});

it("the database's guard alone stops a claim that does not look", async () => {
  const report = await race("naive");
  expect(report.guarded).toBeGreaterThan(0);
  expect(await countOversold(db.system)).toEqual({ oversold: 0, differing: 0 });
});

it("negative control: without both, nodes are oversold", async () => {
  await dropGuards();
  await race("naive");
  expect((await countOversold(db.system)).oversold).toBeGreaterThan(0);
});
