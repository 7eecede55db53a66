import { findingKinds } from "@cloudpods/shared/finding-kinds";
import { ContainerObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { aContainer, again, aPod, at, compare, here, known, rules } from "../../../test/support/comparisons.ts";
import type { KnownFinding } from "./finding.ts";
import type { KnownPod } from "./known-pod.ts";
import { reconcile, type Comparison } from "./reconcile.ts";

describe("a pod's own container", () => {
  const parts = ["mp0", "net1"];
  test("as it should be is nothing to speak of", () => {
    expect(compare({ containers: [aContainer()], pods: [aPod()] })).toEqual({ seen: [], gone: [], deeds: [] });
  });

  test("that is gone is missing, and nothing is made in its place", () => {
    const found = again({ pods: [aPod({ newestBackup: { id: "b", madeAt: "then" } })] }, 30);
    expect(found).toMatchObject({ seen: [{ kind: "missing", offered: ["repair", "remove", "dismiss"] }], deeds: [] });
    expect(again({ pods: [aPod()] }, 30).seen[0]?.offered).toEqual(["remove", "dismiss"]);
  });

  test.each([
    ["power", { power: Power.POWER_STOPPED }, ["dismiss"]],
    ["resized", { cores: 4, memoryMb: 1_024 }, ["accept", "repair", "dismiss"]],
    ["resized", { diskGb: 8 }, ["accept", "dismiss"]],
    ["resized", { cores: 0 }, ["repair", "dismiss"]],
    ["drift", { hostname: "other" }, ["repair", "dismiss"]],
    ["drift", { storage: "elsewhere" }, ["dismiss"]],
    ["drift", { generation: 2n }, ["dismiss"]],
    ["drift", { partsOfNoPod: parts }, ["dismiss"]],
    ["lock", { lock: "snapshot" }, ["repair", "dismiss"]],
  ] as const)("that differs is %s: %o", (kind, changes, offered) => {
    const { seen } = compare({ containers: [aContainer(changes)], pods: [aPod()] });
    expect(seen).toMatchObject([{ kind, offered, podId: "pod", vmid: 105 }]);
  });

  test("with a lock is looked into by its host at the second sighting", () => {
    const locked = { containers: [aContainer({ lock: "backup" })], pods: [aPod()] };
    expect(again(locked, 1).deeds).toEqual([]);
    expect(again(locked, 2).deeds).toEqual([{ deed: "repair", kind: "lock", vmid: 105, podId: "pod" }]);
  });

  test.each([
    ["resized", { cores: 4 }, "cores 4"],
    ["drift", { hostname: "other" }, "hostname other"],
  ] as const)("with a lock and %s is left to people, also once that was dismissed", (kind, changes, subject) => {
    const locked = { containers: [aContainer({ lock: "backup", ...changes })], pods: [aPod()] };
    const found = again(locked, 30);
    expect(found.deeds).toEqual([]);
    expect(found.seen.find((fact) => fact.kind === "lock")?.offered).toEqual(["repair", "dismiss"]);
    const history = [
      known({ kind, subject, state: "dismissed" }),
      known({ kind: "lock", subject: "backup", sightings: 9 }),
    ];
    expect(compare({ ...locked, history }).deeds).toEqual([]);
    const other = aContainer({ vmid: 106, podId: "other", ...changes });
    const neighbours = { containers: [...locked.containers, other], pods: [aPod(), aPod({ id: "other", vmid: 106 })] };
    const containers = [aContainer({ lock: "backup" }), other];
    expect(again({ ...neighbours, containers }, 2).deeds).toMatchObject([{ kind: "lock", vmid: 105 }]);
  });
});

describe("a container whose pod is elsewhere", () => {
  const moved = {
    pods: [aPod({ nodeId: "there", node: "pve2", generation: 2n, highestGeneration: 2n, hasRoomHere: false })],
  };

  test("is stopped at once and removed after the grace and two sightings", () => {
    const copy = { ...moved, containers: [aContainer()] };
    expect(again(copy, 1).deeds).toMatchObject([{ deed: "stop", kind: "stale-copy" }]);
    expect(again(copy, 10).deeds).toMatchObject([{ deed: "stop" }]);
    expect(again(copy, 11).deeds).toMatchObject([{ deed: "remove" }]);
    // One look, however long ago the pod left: the grace alone is not enough.
    const old: KnownFinding[] = [known({ subject: "pod 0", firstSeenAt: at(0), sightings: 9 })];
    expect(compare({ ...copy, history: old }).deeds).toMatchObject([{ deed: "stop" }]);
  });

  test("that has volumes of its own is stopped, and removed by people only, who decide anew when those are others", () => {
    const copy = (...partsOfNoPod: string[]) => ({ ...moved, containers: [aContainer({ partsOfNoPod })] });
    const { seen, deeds } = again(copy("mp0", "net1"), 30);
    expect(deeds).toMatchObject([{ deed: "stop" }]);
    expect(seen).toMatchObject([
      { subject: "pod 1 mp0", evidence: { volumes: ["mp0"] }, offered: ["remove", "dismiss"] },
    ]);
    expect(again(copy("net1"), 11).deeds).toMatchObject([{ deed: "remove" }]);
    expect(again(copy("mp0", "unused0"), 1).seen).toMatchObject([{ subject: "pod 1 mp0 unused0", sightings: 1 }]);
  });

  test.each([
    ["the pod's own host does not show it: this may be all that is left", { isSeenAtHome: false }, {}],
    ["it carries the generation in force: somebody moved it by hand", {}, { generation: 2n }],
    ["it has another id: somebody copied it by hand", {}, { vmid: 900 }],
    ["its mark is above all that we ever told: our books are behind", {}, { generation: 3n }],
    ["somebody works on the pod", { isSettled: false }, {}],
  ])("is left alone when %s", (_, pod, container) => {
    const [first] = moved.pods;
    const pods = first === undefined ? [] : [{ ...first, ...pod }];
    expect(again({ pods, containers: [aContainer(container)] }, 30).deeds).toEqual([]);
  });
});

describe("a container whose pod has no place", () => {
  const stopped = { power: Power.POWER_STOPPED };
  const orphan = (pod: Partial<KnownPod>, container: Partial<ContainerObservation> = stopped) => ({
    pods: [aPod({ nodeId: null, hasRoomHere: false, ...pod })],
    containers: [aContainer(container)],
  });

  test("is removed after the grace when the pod was deleted or was never its owner's", () => {
    expect(again(orphan({ status: "deleted" }), 11).deeds).toMatchObject([{ deed: "remove", kind: "orphan" }]);
    expect(again(orphan({ status: "failed", wasActivated: false }), 11).deeds).toMatchObject([{ deed: "remove" }]);
    expect(again(orphan({ status: "deleted" }, { ...stopped, partsOfNoPod: ["unused0"] }), 30).deeds).toEqual([]);
  });

  test("is stopped at once when the pod was deleted, also where its removal is left to people", () => {
    expect(again(orphan({ status: "deleted" }, {}), 1).deeds).toMatchObject([{ deed: "stop", kind: "orphan" }]);
    expect(again(orphan({ status: "deleted" }, {}), 11).deeds).toMatchObject([{ deed: "remove" }]);
    const more = { partsOfNoPod: ["unused0"] };
    expect(again(orphan({ status: "deleted", hasRoomHere: true }, more), 30)).toMatchObject({
      seen: [{ kind: "orphan", offered: ["remove", "dismiss"] }],
      deeds: [{ deed: "stop" }],
    });
    expect(again(orphan({ status: "failed" }, {}), 30).deeds).toEqual([]);
  });

  test("is somebody's own where an adoption came to nothing: it can be adopted again, and nobody offers to remove it", () => {
    const inVain = { status: "deleted", wasAdopted: true, wasActivated: false } as const;
    const { seen, deeds } = again(orphan(inVain, {}), 30);
    expect(seen).toMatchObject([{ kind: "orphan", offered: ["adopt", "dismiss"], evidence: { adoption: "in vain" } }]);
    expect(deeds).toEqual([]);
    expect(again(orphan(inVain, { vmid: 900 }), 1).seen[0]?.offered).toEqual(["dismiss"]);
  });

  test("is only shown when it may be the last of somebody's data", () => {
    const lost = again(orphan({ status: "failed", hasRoomHere: true }), 30);
    expect(lost).toMatchObject({ seen: [{ kind: "orphan", evidence: { pod: "failed" } }], deeds: [] });
    const unknown = again({ containers: [aContainer()] }, 30);
    expect(unknown).toMatchObject({ seen: [{ kind: "orphan", evidence: { pod: "unknown" } }], deeds: [] });
  });

  test("can be the pod again when it is what the pod was when it was given up with its host, and its owner still wants it", () => {
    const offered = (pod: Partial<KnownPod>, container: Partial<ContainerObservation> = stopped) =>
      compare(orphan({ status: "failed", generation: 2n, highestGeneration: 3n, ...pod }, container)).seen[0]?.offered;
    const same = { ...stopped, generation: 2n };
    expect(offered({}, same)).toEqual(["accept", "remove", "dismiss"]);
    for (const generation of [1n, 3n]) expect(offered({}, { generation })).toEqual(["remove", "dismiss"]);
    expect(offered({}, { ...same, vmid: 900 })).toEqual(["dismiss"]);
    for (const pod of [{ isRemovalAsked: true }, { wasActivated: false }, { status: "deleted" } as const])
      expect(offered(pod, same)).toEqual(["remove", "dismiss"]);
  });

  test("is left to people while a fault of ours is presumed, and after six tries", () => {
    expect(again(orphan({ status: "deleted" }), 30, { mayAct: false }).deeds).toEqual([]);
    const tried = known({
      kind: "orphan",
      subject: "pod 1",
      sightings: 9,
      action: "remove",
      actedAt: at(0),
      attempts: 6,
    });
    expect(compare({ ...orphan({ status: "deleted" }), history: [tried] }, { now: at(100_000) }).deeds).toEqual([]);
    const retried = { ...tried, attempts: 2 };
    expect(compare({ ...orphan({ status: "deleted" }), history: [retried] }, { now: at(9) }).deeds).toEqual([]);
    expect(
      compare({ ...orphan({ status: "deleted" }), history: [{ ...retried, firstSeenAt: at(-9) }] }, { now: at(11) })
        .deeds,
    ).toHaveLength(1);
  });
});

describe("a container without a mark", () => {
  test("is offered for adoption and never touched, whatever id it has", () => {
    const found = again({ containers: [aContainer({ podId: "" })], pods: [aPod()] }, 30);
    expect(found.seen.map(({ kind }) => kind)).toEqual(["unmanaged", "missing"]);
    expect(found.deeds).toEqual([]);
  });

  test("that is half of a create of ours goes, after the grace; of somebody else's create nothing is said", () => {
    const half = ContainerObservation.fromPartial({ vmid: 105, lock: "create" });
    const failed = aPod({ status: "failed", nodeId: null, wasActivated: false });
    expect(again({ containers: [half], pods: [{ ...failed, hasRoomHere: false }] }, 11).deeds).toMatchObject([
      { deed: "remove", kind: "half-created" },
    ]);
    expect(compare({ containers: [half] }).seen).toEqual([]);
    expect(again({ containers: [half], pods: [aPod()] }, 30)).toMatchObject({ seen: [{ kind: "missing" }], deeds: [] });
  });
});

test("what was dismissed stays so until it changes; what is not shown any more is over", () => {
  const dismissed = known({ kind: "resized", subject: "cores 4", state: "dismissed" });
  const seen = (cores: number) =>
    compare({ containers: [aContainer({ cores })], pods: [aPod()], history: [dismissed] });
  expect(seen(4).seen).toMatchObject([{ state: "dismissed", sightings: 2 }]);
  expect(seen(5).seen).toMatchObject([{ state: "open", sightings: 1 }]);
  expect(seen(1).gone).toEqual([dismissed]);
  const busy = compare({ containers: [aContainer()], pods: [aPod({ isSettled: false })], history: [dismissed] });
  expect(busy).toEqual({ seen: [], gone: [], deeds: [] });
});

describe("whatever hosts and books say", () => {
  test("nothing without a mark is touched but a nameless half, and nothing of a pod that somebody works on", () => {
    fc.assert(
      fc.property(comparisons, fc.boolean(), (comparison, mayAct) => {
        const { seen, deeds, gone } = reconcile(comparison, rules({ mayAct }));
        expect(new Set(seen.map(({ vmid, kind }) => `${vmid} ${kind}`)).size).toBe(seen.length);
        expect(gone.every((finding) => comparison.history.includes(finding))).toBe(true);
        if (!mayAct) expect(deeds).toEqual([]);
        for (const { deed, vmid, podId, kind } of deeds) {
          const container = comparison.containers.find((one) => one.vmid === vmid);
          const pod = comparison.pods.find(({ id }) => id === podId);
          expect(pod?.isSettled).toBe(true);
          if (kind === "half-created") expect(container).toMatchObject({ podId: "", lock: "create" });
          else expect(container?.podId).toBe(podId);
          const isAtHome =
            pod?.nodeId === here && pod.vmid === vmid && pod.status !== "deleted" && kind !== "half-created";
          if (isAtHome) expect(deed).toBe("repair");
          if (deed === "remove") expect(pod?.status === "active" && !pod.isSeenAtHome).toBe(false);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("a container that moves is on two hosts and is never removed", () => {
    fc.assert(
      fc.property(moves, ({ container, pod, minutes }) => {
        expect(again({ containers: [container], pods: [pod] }, minutes).deeds).toEqual([]);
      }),
    );
  });

  test("negative control: without the second sighting a look into the middle of a move would remove its source", () => {
    /** What is removed at the first look of books that do not know of the work yet, with no grace to help. */
    const removedAtOnce = (sightingsMin: number) =>
      fc.check(
        fc.property(moves, ({ container, pod }) => {
          const unaware = { ...pod, isSettled: true, hasRoomHere: false };
          const { deeds } = compare({ containers: [container], pods: [unaware] }, { graceMs: 0, sightingsMin });
          return deeds.every(({ deed }) => deed !== "remove");
        }),
      ).failed;
    expect(removedAtOnce(1)).toBe(true);
    expect(removedAtOnce(2)).toBe(false);
  });
});

test("archives that nobody could look after are told pod by pod, and to try them again is offered", () => {
  const archive = { podId: "pod", vmid: 105, madeFor: "move", errand: "delete", tries: 12, error: "BROKEN" } as const;
  const archives = ["b", "a"].map((volumeId) => ({ ...archive, volumeId }));
  const evidence = { archives: [{ volumeId: "b", errand: "delete", tries: 12, error: "BROKEN" }, { volumeId: "a" }] };
  const told = compare({ archives: [...archives, { ...archive, podId: "other", vmid: 106, volumeId: "c" }] });
  expect(told).toMatchObject({
    seen: [
      { kind: "left-archive", vmid: 105, subject: "a, b", offered: ["repair", "dismiss"], evidence },
      { kind: "left-archive", vmid: 106, subject: "c" },
    ],
    deeds: [],
  });
});

test("a copy where room is kept may become the pod once the pod's own host has lost it", () => {
  const away = { nodeId: "there", generation: 1n, highestGeneration: 2n, keptHere: 2n, isSeenAtHome: false };
  const copy = aContainer({ generation: 2n, power: Power.POWER_STOPPED });
  expect(compare({ containers: [copy], pods: [aPod(away)] })).toMatchObject({ seen: [], deeds: [] });
  const lost = aPod({ ...away, isMissingAtHome: true });
  expect(again({ containers: [copy], pods: [lost] }, 30)).toMatchObject({
    seen: [{ kind: "stale-copy", offered: ["accept", "dismiss"], evidence: { missingAtHome: true } }],
    deeds: [],
  });
  const newer = aContainer({ generation: 3n });
  expect(compare({ containers: [newer], pods: [lost] }).seen[0]?.offered).toEqual(["dismiss"]);
  // Room that is still kept where the pod came from is not kept for it.
  const former = { ...lost, generation: 2n, keptHere: 1n };
  const original = aContainer({ generation: 1n });
  expect(compare({ containers: [original], pods: [former] }).seen[0]?.offered).toEqual(["dismiss"]);
});

const ids = fc.constantFrom("a", "b", "c");
const vmids = fc.integer({ min: 100, max: 104 });
const generations = fc.bigInt({ min: 0n, max: 4n });

const containers = fc.uniqueArray(
  fc
    .record({
      vmid: vmids,
      podId: fc.oneof(ids, fc.constant("")),
      generation: generations,
      power: fc.constantFrom(Power.POWER_RUNNING, Power.POWER_STOPPED, Power.POWER_UNSPECIFIED),
      cores: fc.integer({ min: 0, max: 2 }),
      diskGb: fc.integer({ min: 0, max: 5 }),
      lock: fc.constantFrom("", "create", "backup", "destroyed"),
      template: fc.boolean(),
    })
    .map((changes) => aContainer(changes)),
  { selector: ({ vmid }) => vmid },
);

const pods = fc.uniqueArray(
  fc
    .record({
      id: ids,
      vmid: vmids,
      status: fc.constantFrom("provisioning", "active", "suspended", "failed", "deleting", "deleted"),
      nodeId: fc.constantFrom(here, "there", null),
      generation: generations,
      highestGeneration: generations,
      isSettled: fc.boolean(),
      hasRoomHere: fc.boolean(),
      isSeenAtHome: fc.boolean(),
      isMissingAtHome: fc.boolean(),
      wasActivated: fc.boolean(),
      wasAdopted: fc.boolean(),
    })
    .map((changes) => aPod({ ...changes, status: changes.status as KnownPod["status"] })),
  { selector: ({ id }) => id },
);

/** Of the live pods each has an id of its own. */
const comparisons: fc.Arbitrary<Comparison> = fc.record({
  nodeId: fc.constant(here),
  containers,
  pods: pods.filter((all) => new Set(all.map(({ vmid }) => vmid)).size === all.length),
  history: fc.uniqueArray(
    fc
      .record({ vmid: vmids, kind: fc.constantFrom(...findingKinds), sightings: fc.integer({ min: 1, max: 9 }) })
      .map(known),
    { selector: ({ vmid, kind }) => `${vmid} ${kind}` },
  ),
  archives: fc.constant([]),
});

/** A pod on its way: the copy here is the source, or the target to be. */
const moves = fc
  .record({ from: fc.bigInt({ min: 1n, max: 3n }), isTarget: fc.boolean(), minutes: fc.integer({ min: 1, max: 40 }) })
  .map(({ from, isTarget, minutes }) => ({
    minutes,
    container: aContainer({ generation: isTarget ? from + 1n : from }),
    pod: aPod({
      nodeId: "there",
      generation: isTarget ? from : from + 1n,
      highestGeneration: from + 1n,
      isSettled: false,
      hasRoomHere: true,
    }),
  }));
