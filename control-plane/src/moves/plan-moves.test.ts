import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { anyFleet, fleetOf, nodeWith } from "../../../test/support/placement-arbitraries.ts";
import type { FleetSnapshot } from "../scheduling/fleet-snapshot.ts";
import { expectedCost, totalDurationMs } from "./expected-downtime.ts";
import { planMoves, type MovePlan, type PodToMove, type Surroundings } from "./plan-moves.ts";
import type { Reach } from "./reach.ts";

const pod = (changes: Partial<PodToMove> = {}): PodToMove => ({
  id: "p1",
  name: "shop",
  vmid: 100_001,
  tenantId: "t1",
  labels: {},
  cores: 1,
  memoryMb: 1_024,
  diskGb: 10,
  region: "eu",
  placementRequest: {},
  disk: { storage: "local", isShared: false, isBoundToHost: false },
  runs: true,
  backupsLeftBehind: [],
  blocker: undefined,
  ...changes,
});

const around = (snapshot: FleetSnapshot, changes: Partial<Surroundings> = {}): Surroundings => ({
  snapshot,
  reach: snapshot.nodes.map(({ id }) => ({ nodeId: id, canMigrate: true, archiveStorage: "backups" })),
  neighbours: [],
  history: [],
  ...changes,
});

const podArbitrary = fc.record({
  tenantId: fc.constantFrom("t1", "t2"),
  labels: fc.dictionary(fc.constant("app"), fc.constantFrom("web", "db")),
  cores: fc.integer({ min: 1, max: 4 }),
  memoryMb: fc.integer({ min: 256, max: 4_096 }),
  diskGb: fc.integer({ min: 1, max: 60 }),
  placementRequest: fc.constantFrom({}, { antiAffinity: { app: "db" } }),
  disk: fc.record({ storage: fc.constant("local"), isShared: fc.boolean(), isBoundToHost: fc.boolean() }),
  blocker: fc.option(fc.constant({ code: "POD_BUSY", message: "busy" }), { nil: undefined, freq: 8 }),
});
const podsArbitrary = fc
  .array(podArbitrary, { maxLength: 12 })
  .map((some) => some.map((one, index) => pod({ ...one, id: `p${index}` })));

const world = anyFleet.chain((snapshot) =>
  fc.record({
    snapshot: fc.constant(snapshot),
    reach: fc.tuple(
      ...snapshot.nodes.map(({ id }) =>
        fc.record({
          nodeId: fc.constant(id),
          canMigrate: fc.boolean(),
          archiveStorage: fc.option(fc.constant("backups")),
        }),
      ),
    ),
    pods: podsArbitrary,
  }),
);

/** What the plan would have allocated, by node and by storage. */
function allocated(plan: MovePlan, pods: readonly PodToMove[], snapshot: FleetSnapshot): string[] {
  const faults: string[] = [];
  for (const node of snapshot.nodes) {
    const here = plan.moves.filter(({ target }) => target?.nodeId === node.id);
    const sizes = here.map(({ podId }) => pods.find(({ id }) => id === podId) ?? pod());
    const sum = (size: (one: PodToMove) => number): number => sizes.reduce((total, one) => total + size(one), 0);
    if (here.length === 0) continue;
    if (node.cpuAllocated + sum(({ cores }) => cores) > node.cpuAllocatable) faults.push(`cpu of ${node.id}`);
    if (node.memoryAllocatedMb + sum(({ memoryMb }) => memoryMb) > node.memoryAllocatableMb)
      faults.push(`memory of ${node.id}`);
  }
  return faults;
}

describe("a plan", () => {
  test("gives every pod a reachable target or a blocker with a name, and never more than there is", () => {
    fc.assert(
      fc.property(world, ({ snapshot, reach, pods }) => {
        const plan = planMoves(pods, around(snapshot, { reach }), 2);
        expect(plan.moves.map(({ podId }) => podId).toSorted()).toEqual(pods.map(({ id }) => id).toSorted());
        for (const { target, strategy, blocker, podId } of plan.moves) {
          expect((target === null) === (blocker !== null)).toBe(true);
          expect((target === null) === (strategy === null)).toBe(true);
          if (blocker !== null) expect(blocker.code).toMatch(/^[A-Z_]+$/);
          const way = reach.find(({ nodeId }) => nodeId === target?.nodeId);
          const { disk } = pods.find(({ id }) => id === podId) ?? pod();
          if (strategy === "cluster-migrate") expect(way?.canMigrate === true && !disk.isBoundToHost).toBe(true);
          if (strategy === "backup-restore") expect(way?.archiveStorage).not.toBeNull();
        }
        expect(allocated(plan, pods, snapshot)).toEqual([]);
      }),
    );
  });

  test("keeps apart what must be apart, also pods that move in the same plan", () => {
    const apart = { antiAffinity: { app: "db" } };
    const pods = ["p1", "p2", "p3"].map((id) => pod({ id, labels: { app: "db" }, placementRequest: apart }));
    const plan = planMoves(pods, around(fleetOf(nodeWith({ id: "a" }), nodeWith({ id: "b" }))), 1);
    const targets = plan.moves.flatMap(({ target }) => target?.nodeId ?? []);
    expect(targets.toSorted()).toEqual(["a", "b"]);
    expect(plan.moves.find(({ target }) => target === null)?.blocker).toMatchObject({ code: "NO_HOST" });
  });

  test("prefers the cluster, and says what leads nowhere", () => {
    const snapshot = fleetOf(nodeWith({ id: "a" }), nodeWith({ id: "b" }));
    const reach: Reach[] = [
      { nodeId: "a", canMigrate: false, archiveStorage: "backups" },
      { nodeId: "b", canMigrate: true, archiveStorage: null },
    ];
    const linked = { storage: "local", isShared: false, isBoundToHost: true };
    const plan = planMoves([pod(), pod({ id: "p2", disk: linked })], around(snapshot, { reach }), 1);
    expect(plan.moves.map(({ target, strategy }) => [target?.nodeId, strategy])).toEqual([
      ["b", "cluster-migrate"],
      ["a", "backup-restore"],
    ]);
    const [stuck] = planMoves([pod({ disk: linked })], around(snapshot, { reach: reach.slice(1) }), 1).moves;
    expect(stuck?.blocker?.code).toBe("NO_WAY");
  });

  test("names volumes that no archive would hold, where an archive is the only way", () => {
    const snapshot = fleetOf(nodeWith({ id: "a" }));
    const extraVolumes = { keys: ["mp0", "unused1"], seenAt: new Date("2026-11-21T10:00:00.500Z") };
    const disk = { storage: "local", isShared: false, isBoundToHost: false, extraVolumes };
    const planned = (reach: Partial<Reach>) =>
      planMoves([pod({ disk })], around(snapshot, { reach: [{ ...byArchive, ...reach }] }), 1).moves[0];
    const byArchive: Reach = { nodeId: "a", canMigrate: false, archiveStorage: "backups" };
    expect(planned({})).toMatchObject({
      target: null,
      blocker: {
        code: "MORE_THAN_A_POD",
        message: "Its container has mp0, unused1 (seen at 2026-11-21T10:00:00Z), which no archive of a pod would hold.",
      },
    });
    // A migration takes them along, and without a common storage they are not the reason.
    expect(planned({ canMigrate: true })).toMatchObject({ strategy: "cluster-migrate", blocker: null });
    expect(planned({ archiveStorage: null })).toMatchObject({ blocker: { code: "NO_WAY" } });
  });
});

describe("what moves cost", () => {
  const past = (strategy: "cluster-migrate" | "backup-restore", diskGb: number, downtimeMs: number) => ({
    strategy,
    diskGb,
    downtimeMs,
    durationMs: 2 * downtimeMs,
  });

  test("is in proportion to the disk by archive, and the same for all in a cluster", () => {
    const history = [
      past("backup-restore", 10, 10_000),
      past("backup-restore", 20, 40_000),
      past("cluster-migrate", 500, 4_000),
    ];
    expect(expectedCost(history, { strategy: "backup-restore", diskGb: 40, runs: true })).toEqual({
      downtimeMs: 60_000,
      durationMs: 120_000,
    });
    expect(expectedCost(history, { strategy: "cluster-migrate", diskGb: 1, runs: true }).downtimeMs).toBe(4_000);
    expect(expectedCost(history, { strategy: "backup-restore", diskGb: 40, runs: false }).downtimeMs).toBe(0);
    expect(expectedCost([], { strategy: "backup-restore", diskGb: 40, runs: true }).downtimeMs).toBeNull();
  });

  test("adds up in as many lanes as are allowed", () => {
    expect(totalDurationMs([5, 5, 5, 5], 2)).toBe(10);
    expect(totalDurationMs([9, 1, 1, 1], 2)).toBe(9);
    expect(totalDurationMs([1, null], 2)).toBeNull();
    expect(totalDurationMs([], 2)).toBe(0);
  });
});
