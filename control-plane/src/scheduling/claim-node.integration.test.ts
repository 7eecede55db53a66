import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import {
  countOversold,
  insertFleet,
  insertPods,
  insertTenants,
  type UnplacedPod,
} from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { growClaim, releaseClaim } from "./change-claim.ts";
import { createFleetView } from "./fleet-view.ts";
import { placePod, type Placement } from "./place-pod.ts";
import type { PlacementRequest } from "./placement-request.ts";
import { readSnapshot } from "./read-snapshot.ts";
import { recountClaims } from "./recount-claims.ts";

let db: TestDatabase;
let tenantId: string;
beforeEach(async () => {
  db = await createTestDatabase();
  tenantId = (await insertTenants(db.system, 1))[0] ?? "";
});
afterEach(() => db.close());

const size = { cores: 1, memoryMb: 1_024, diskGb: 10 };

async function newPod(of: string = tenantId): Promise<UnplacedPod> {
  const [pod] = await insertPods(db.system, [of], size);
  if (pod === undefined) throw new Error("no pod was made");
  return pod;
}

async function place(
  pod: UnplacedPod,
  wishes: Partial<PlacementRequest> = {},
  fleet = createFleetView(),
): Promise<Placement> {
  return await db.api.transaction((tx) => placeIn(tx, pod, wishes, fleet), { tenantId: pod.tenantId });
}

async function placeIn(
  tx: Queryable,
  pod: UnplacedPod,
  wishes: Partial<PlacementRequest>,
  fleet = createFleetView(),
): Promise<Placement> {
  const { podId, vmid, cores, memoryMb, diskGb } = pod;
  return await placePod(tx, fleet, {
    tenantId: pod.tenantId,
    podId,
    vmid,
    generation: 1n,
    request: { cores, memoryMb, diskGb, ...wishes },
  });
}

const allocated = () =>
  db.system.query<{ node: string; cpu: number; memory: number; disk: number }>(sql`
    SELECT n.name AS node, c.cpu_allocated AS cpu, c.memory_allocated_mb AS memory, coalesce(sum(s.allocated_gb), 0)::integer AS disk
    FROM nodes n JOIN node_capacity c ON c.node_id = n.id LEFT JOIN node_storages ns ON ns.node_id = n.id LEFT JOIN storages s ON s.id = ns.storage_id
    GROUP BY n.name, c.cpu_allocated, c.memory_allocated_mb ORDER BY n.name`);

const fourPods = { cores: 4, memoryMb: 8_192, diskGb: 200 };

describe("placePod", () => {
  it("claims node and storage and writes the placement, with the tenants' login", async () => {
    const [nodeId] = await insertFleet(db.system, { nodes: 1, ...fourPods });
    const pod = await newPod();
    const placement = await place(pod);
    expect(placement).toMatchObject({
      nodeId,
      node: "node-00001",
      storage: "local",
      bridge: "vmbr0",
      pool: null,
      template: "ct:9000",
      region: "eu",
    });
    expect(placement.verdict).toMatchObject({ summary: "1 of 1 node", chosen: { node: "node-00001" } });
    expect(await allocated()).toEqual([{ node: "node-00001", cpu: 1, memory: 1_024, disk: 10 }]);
    const history = await db.system.query(sql`SELECT node_id, vmid, generation, placed_to FROM cloud_pod_placements`);
    expect(history).toEqual([{ node_id: nodeId, vmid: pod.vmid, generation: 1n, placed_to: null }]);
  });

  it("leaves nothing behind when the order is rolled back", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    const pod = await newPod();
    const order = db.api.transaction(
      async (tx) => {
        await placeIn(tx, pod, {});
        throw new Error("the rest of the order failed");
      },
      { tenantId },
    );
    await expect(order).rejects.toThrow("the rest");
    expect(await allocated()).toEqual([{ node: "node-00001", cpu: 0, memory: 0, disk: 0 }]);
  });

  it("refuses with the reasons when no node fits", async () => {
    await insertFleet(db.system, { nodes: 2, ...fourPods });
    await db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE name = 'node-00001'`);
    const [pod] = await insertPods(db.system, [tenantId], { cores: 1, memoryMb: 8_704, diskGb: 10 });
    if (pod === undefined) throw new Error("no pod");
    await expect(place(pod)).rejects.toMatchObject({
      code: "NO_CAPACITY",
      details: {
        nodes: [
          { filter: "schedulable", nodes: 1 },
          { filter: "memory", nodes: 1 },
        ],
      },
      verdict: { summary: "0 of 2 nodes: 1 cordoned, 1 short of memory by 512 MB" },
    });
  });

  it("keeps pods of a tenant apart that must be, and spreads the others", async () => {
    await insertFleet(db.system, { nodes: 2, ...fourPods });
    const first = await newPod();
    await db.system.execute(sql`UPDATE cloud_pods SET labels = '{"app": "db"}' WHERE id = ${first.podId}`);
    const { node } = await place(first);
    const apart = { antiAffinity: { app: "db" } };
    expect((await place(await newPod(), apart)).node).not.toBe(node);
    const stranger = (await insertTenants(db.system, 1))[0] ?? "";
    expect((await place(await newPod(stranger), apart)).node).toBe("node-00001");
    await db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE name <> ${node}`);
    await expect(place(await newPod(), apart)).rejects.toMatchObject({
      details: {
        nodes: [
          { filter: "schedulable", nodes: 1 },
          { filter: "anti-affinity", nodes: 1 },
        ],
      },
    });
  });
});

describe("an old view of the fleet", () => {
  it("does no harm when the best node is full, cordoned or gone by now", async () => {
    await insertFleet(db.system, { nodes: 4, ...fourPods });
    const old = await readSnapshot(db.system);
    await db.system.execute(
      sql`UPDATE node_capacity SET memory_total_mb = 512 WHERE node_id = (SELECT id FROM nodes WHERE name = 'node-00001')`,
    );
    await db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE name = 'node-00002'`);
    await db.system.execute(
      sql`UPDATE node_status SET state = 'offline' WHERE node_id = (SELECT id FROM nodes WHERE name = 'node-00003')`,
    );
    const stale = createFleetView(() => Promise.resolve(old));
    expect((await place(await newPod(), {}, stale)).node).toBe("node-00004");
  });

  it("never refuses what fits now", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    await db.system.execute(sql`UPDATE nodes SET schedulable = false`);
    let looks = 0;
    const fleet = createFleetView((tx) => {
      looks += 1;
      return readSnapshot(tx);
    });
    await fleet.recent(db.system);
    await db.system.execute(sql`UPDATE nodes SET schedulable = true`);
    expect((await place(await newPod(), {}, fleet)).node).toBe("node-00001");
    expect(looks).toBe(2);
  });

  it("is read once for many that ask at the same time", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    let looks = 0;
    const fleet = createFleetView((tx) => {
      looks += 1;
      return readSnapshot(tx);
    });
    await Promise.all(Array.from({ length: 50 }, () => fleet.recent(db.system)));
    expect(looks).toBe(1);
  });

  it("is read by each for itself when the one that read for all failed", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    let looks = 0;
    const fleet = createFleetView((tx) => (++looks === 1 ? Promise.reject(new Error("lost")) : readSnapshot(tx)));
    const [first, second] = await Promise.allSettled([fleet.fresh(db.system), fleet.fresh(db.system)]);
    expect(first.status).toBe("rejected");
    expect(second.status).toBe("fulfilled");
  });
});

describe("claims at the same time", () => {
  it("pass over a node that another order holds", async () => {
    await insertFleet(db.system, { nodes: 2, ...fourPods });
    const [mine, theirs] = [await newPod(), await newPod((await insertTenants(db.system, 1))[0])];
    await db.api.transaction(
      async (tx) => {
        const held = await placeIn(tx, mine, {});
        expect((await place(theirs)).node).not.toBe(held.node);
      },
      { tenantId },
    );
  });

  it("wait for a node that is held when there is no other", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    const [mine, theirs] = [await newPod(), await newPod((await insertTenants(db.system, 1))[0])];
    const waiting = await db.api.transaction(
      async (tx) => {
        await placeIn(tx, mine, {});
        const other = place(theirs);
        await untilSomeoneWaits();
        return { other };
      },
      { tenantId },
    );
    expect((await waiting.other).node).toBe("node-00001");
    expect(await countOversold(db.system)).toEqual({ oversold: 0, differing: 0 });
  });

  it("make a cordon wait for the claims that did not see it, so that a drain finds them", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    const pod = await newPod();
    const { cordon } = await db.api.transaction(
      async (tx) => {
        await placeIn(tx, pod, {});
        const begun = db.system.transaction(async (operator) => {
          await operator.execute(sql`UPDATE nodes SET schedulable = false`);
          return (await operator.query(sql`SELECT FROM node_claims`)).length;
        });
        await untilSomeoneWaits();
        return { cordon: begun };
      },
      { tenantId },
    );
    expect(await cordon).toBe(1);
  });

  async function untilSomeoneWaits(): Promise<void> {
    await until("a transaction that waits for a lock", async () => {
      // A login sees only its own sessions.
      const waiting = sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
      return [...(await db.system.query(waiting)), ...(await db.api.query(waiting))].length > 0;
    });
  }
});

describe("shared storage", () => {
  it("is counted once for all nodes that see it", async () => {
    const nodeIds = await insertFleet(db.system, { nodes: 3, ...fourPods });
    const [clusterId, storageId] = [newId(), newId()];
    await db.system.execute(sql`INSERT INTO clusters (id, name) VALUES (${clusterId}, 'c')`);
    await db.system.execute(sql`
      INSERT INTO storages (id, cluster_id, name, type, shared, total_gb) VALUES (${storageId}, ${clusterId}, 'ceph', 'rbd', true, 25)`);
    await db.system.execute(sql`
      INSERT INTO node_storages (node_id, storage_id) SELECT id, ${storageId} FROM unnest(${nodeIds}::uuid[]) AS given (id)`);
    const pods = await insertPods(
      db.system,
      Array.from({ length: 6 }, () => tenantId),
      size,
    );
    const results = await Promise.allSettled(pods.map((pod) => place(pod, { storage: "ceph" })));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
    for (const result of results)
      if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "NO_CAPACITY" });
    expect(await countOversold(db.system)).toEqual({ oversold: 0, differing: 0 });
  });
});

describe("what is promised of a node", () => {
  it("can be given back when the node has shrunk below it", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    const [first, second] = [await newPod(), await newPod()];
    await place(first);
    await place(second);
    await db.system.execute(sql`UPDATE node_capacity SET memory_total_mb = 1_024, cpu_total = 1`);
    await db.system.execute(sql`UPDATE storages SET total_gb = 1`);
    await db.system.transaction((tx) => growClaim(tx, first.podId, { cores: 0, memoryMb: -512, diskGb: 0 }));
    await db.system.transaction((tx) => releaseClaim(tx, second.podId, 1n));
    expect(await allocated()).toEqual([{ node: "node-00001", cpu: 1, memory: 512, disk: 10 }]);
  });

  it("is given back once, and the placement ends", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    const [pod, other] = [await newPod(), await newPod()];
    await place(pod);
    await place(other);
    await Promise.all([1, 2, 3].map(() => db.system.transaction((tx) => releaseClaim(tx, pod.podId, 1n))));
    await db.system.transaction((tx) => releaseClaim(tx, other.podId, 2n));
    expect(await allocated()).toEqual([{ node: "node-00001", cpu: 1, memory: 1_024, disk: 10 }]);
    const open = await db.system.query(sql`SELECT pod_id FROM cloud_pod_placements WHERE placed_to IS NULL`);
    expect(open).toEqual([{ pod_id: other.podId }]);
  });

  it("grows with a pod as far as there is room on node and storage", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    const pod = await newPod();
    await place(pod);
    const grow = (delta: { cores: number; memoryMb: number; diskGb: number }) =>
      db.api.transaction((tx) => growClaim(tx, pod.podId, delta), { tenantId });
    await grow({ cores: 3, memoryMb: -512, diskGb: 190 });
    await expect(grow({ cores: 1, memoryMb: 0, diskGb: 0 })).rejects.toMatchObject({
      code: "NO_CAPACITY",
      details: { nodes: [{ filter: "cpu", nodes: 1 }] },
    });
    await expect(grow({ cores: -1, memoryMb: 0, diskGb: 1 })).rejects.toMatchObject({
      code: "NO_CAPACITY",
      details: { nodes: [{ filter: "disk", nodes: 1 }] },
    });
    expect(await allocated()).toEqual([{ node: "node-00001", cpu: 4, memory: 512, disk: 200 }]);
    expect(await countOversold(db.system)).toEqual({ oversold: 0, differing: 0 });
  });
});

describe("the guard in the database", () => {
  it("refuses an increase above what there is, whoever asks, and nothing else", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    const refused = { code: "CP001" };
    await expect(db.system.execute(sql`UPDATE node_capacity SET cpu_allocated = 5`)).rejects.toMatchObject(refused);
    await expect(db.system.execute(sql`UPDATE node_capacity SET memory_allocated_mb = 8_193`)).rejects.toMatchObject(
      refused,
    );
    await expect(db.system.execute(sql`UPDATE storages SET allocated_gb = 201`)).rejects.toMatchObject(refused);
    await db.system.execute(sql`UPDATE node_capacity SET cpu_allocated = 4`);
    await db.system.execute(sql`UPDATE node_capacity SET cpu_overcommit = 0.5`);
    await db.system.execute(sql`UPDATE node_capacity SET cpu_allocated = 3`);
  });
});

describe("recountClaims", () => {
  it("makes the figures what the claims add up to, even where that is too much, and says so", async () => {
    await insertFleet(db.system, { nodes: 1, ...fourPods });
    await place(await newPod());
    await db.system.execute(
      sql`UPDATE node_capacity SET cpu_allocated = 3, memory_allocated_mb = 0, memory_total_mb = 512`,
    );
    await db.system.execute(sql`UPDATE storages SET allocated_gb = 11`);
    const repaired = await recountClaims(db.system);
    expect(repaired).toEqual([
      expect.objectContaining({
        kind: "node",
        allocated: { cpu: 3, memoryMb: 0 },
        claimed: { cpu: 1, memoryMb: 1_024 },
      }),
      expect.objectContaining({ kind: "storage", allocated: { diskGb: 11 }, claimed: { diskGb: 10 } }),
    ]);
    expect(await allocated()).toEqual([{ node: "node-00001", cpu: 1, memory: 1_024, disk: 10 }]);
    const audit = await db.system.query<{ action: string; target_type: string }>(sql`
      SELECT action, target_type FROM audit_log WHERE action = 'capacity.repair' ORDER BY target_type`);
    expect(audit.map(({ target_type }) => target_type)).toEqual(["node", "storage"]);
    expect(await recountClaims(db.system)).toEqual([]);
  });
});
