import { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { RestoreOrder } from "../containers/containers.ts";
import { formatMarker, noteRestore } from "../containers/marker.ts";
import type { ContainerHere } from "../containers/observed-container.ts";
import { parseContainerConfig } from "../pct/parse-pct-config.ts";
import { type RestoreFacts, planRestore } from "./plan-restore.ts";

const podId = "0193a5b0-1111-7abc-8def-000000000001";
const commandId = "0193a5b0-4444-7abc-8def-000000000001";
const volumeId = "shared:backup/vzdump-lxc-102-2026_11_21-00_35_12.tar.zst";

const order = (change: Partial<RestoreOrder> = {}): RestoreOrder => ({
  podId,
  vmid: 102,
  fleetEpoch: 1n,
  generation: 2n,
  volumeId,
  spec: ContainerSpec.fromPartial({}),
  overwrite: false,
  takeOverFrom: "",
  ...change,
});

interface Present {
  readonly owner: string;
  readonly generation: bigint;
  readonly lock: string;
  readonly running: boolean;
  readonly lockIsStale: boolean;
  readonly restoredBy: string;
  /** A line of the configuration besides those of every pod. */
  readonly more: string;
  readonly snapshot: string;
}

function here(change: Partial<Present> = {}): ContainerHere {
  const present = {
    owner: podId,
    generation: 2n,
    lock: "",
    running: false,
    lockIsStale: true,
    restoredBy: "",
    more: "",
    snapshot: "",
    ...change,
  };
  const marker = {
    podId: present.owner,
    fleetEpoch: 1n,
    generation: present.generation,
    stage: "ready",
    keys: "none",
  } as const;
  const marked = present.owner === "" ? "somebody's" : formatMarker(marker);
  const description = present.restoredBy === "" ? marked : noteRestore(marked, present.restoredBy);
  const lines = [
    ...description.split("\n").map((line) => `#${line}`),
    "hostname: x",
    "rootfs: shared:102/x.raw,size=4G",
    present.more,
  ];
  const { lock, snapshot } = present;
  const ends = [...(lock === "" ? [] : [`lock: ${lock}`]), ...(snapshot === "" ? [] : [`\n[${snapshot}]`])];
  const text = [...lines, ...ends].join("\n");
  const { running, lockIsStale } = present;
  return { where: "here", config: parseContainerConfig(text), configSha256: "", digest: "", running, lockIsStale };
}

const facts = (change: Partial<RestoreFacts> = {}): RestoreFacts => ({
  commandId,
  observed: { where: "nowhere" },
  dead: undefined,
  deadIsOnline: false,
  diskIsShared: false,
  isStoppedBefore: false,
  ownHalf: false,
  ...change,
});

const anyPresent = fc.record({
  owner: fc.constantFrom(podId, "0193a5b0-1111-7abc-8def-000000000002", ""),
  generation: fc.constantFrom(1n, 2n, 3n),
  lock: fc.constantFrom("", "create", "backup", "migrate"),
  running: fc.boolean(),
  lockIsStale: fc.boolean(),
  restoredBy: fc.constantFrom("", commandId, "0193a5b0-4444-7abc-8def-000000000002"),
  more: fc.constantFrom("", "net1: name=eth1", "mp0: shared:102/y.raw,mp=/y", "unused0: shared:102/z.raw"),
  snapshot: fc.constantFrom("", "", "before-upgrade", "vzdump"),
});
const anyOrder = fc
  .record({
    overwrite: fc.boolean(),
    takeOverFrom: fc.constantFrom("", "pve1"),
    volumeId: fc.constantFrom(volumeId, ""),
  })
  .map(order);

/** What is done to a container on this host; undefined when it is left alone. */
function deed(wanted: RestoreOrder, present: Partial<Present>, diskIsShared: boolean, plan: typeof planRestore) {
  try {
    return plan(wanted, facts({ observed: here(present), diskIsShared }));
  } catch (error) {
    expect(error).toBeInstanceOf(ContainerFailure);
    return undefined;
  }
}

function checkNothingIsLost(plan: typeof planRestore): void {
  fc.assert(
    fc.property(anyOrder, anyPresent, fc.boolean(), (wanted, present, diskIsShared) => {
      const next = deed(wanted, present, diskIsShared, plan);
      if (next?.kind !== "restore") return;
      expect(present.owner).toBe(podId);
      expect(present.generation).toBeLessThanOrEqual(2n);
      expect(present).toMatchObject({ running: false, lock: "" });
      expect(present.restoredBy).not.toBe(commandId);
      expect(present.more).not.toMatch(/^(?:mp|unused)/u);
      if (wanted.takeOverFrom === "") expect(present.snapshot).not.toBe("before-upgrade");
      expect(wanted.volumeId).toBe(volumeId);
      expect(wanted.overwrite || wanted.takeOverFrom !== "").toBe(true);
      expect(wanted.takeOverFrom !== "" && diskIsShared).toBe(false);
    }),
    { numRuns: 5_000 },
  );
}

describe("a restore replaces only the pod's own stopped container that it may, and only once", () => {
  test("whatever is there", () => checkNothingIsLost(planRestore));

  test("negative control: a plan that forgets the command restores over what was written since", () => {
    const forgetful: typeof planRestore = (wanted, given) => planRestore(wanted, { ...given, commandId: "" });
    expect(() => checkNothingIsLost(forgetful)).toThrow("Property failed");
  });
});

test("a restore over volumes or snapshots that no archive holds is refused by their names, also before a lock is broken", () => {
  for (const lock of ["", "backup"]) {
    const observed = here({ more: "mp3: /srv/x,mp=/x", snapshot: "before-upgrade", lock });
    const refused = "has mp3, snapshot:before-upgrade";
    expect(() => planRestore(order({ overwrite: true }), facts({ observed }))).toThrow(refused);
  }
});

test("snapshots of a disk that went with its host keep nobody from a rescue, nor does the one that vzdump makes", () => {
  const taken = facts({ observed: here({ snapshot: "before-upgrade" }) });
  expect(planRestore(order({ takeOverFrom: "pve1" }), taken)).toEqual({ kind: "restore", overwrite: true });
  const left = facts({ observed: here({ snapshot: "vzdump" }) });
  expect(planRestore(order({ overwrite: true }), left)).toEqual({ kind: "restore", overwrite: true });
});

test("what runs after it was restored by the same command is not stopped or replaced", () => {
  const next = planRestore(
    order({ overwrite: true }),
    facts({ observed: here({ restoredBy: commandId, running: true }) }),
  );
  expect(next).toEqual({ kind: "finish", restored: true });
});

test("that a container runs is nothing against a restore before which it is stopped", () => {
  const observed = here({ running: true });
  expect(() => planRestore(order({ overwrite: true }), facts({ observed }))).toThrow("is running");
  const next = planRestore(order({ overwrite: true }), facts({ observed, isStoppedBefore: true }));
  expect(next).toEqual({ kind: "restore", overwrite: true });
});

describe("a half without a name", () => {
  const half: ContainerHere = { ...here(), config: parseContainerConfig("lock: create\n") };
  test("is taken away when a program of ours made it, and never else", () => {
    expect(planRestore(order(), facts({ observed: half, ownHalf: true }))).toEqual({ kind: "clean-up" });
    expect(() => planRestore(order(), facts({ observed: half }))).toThrow("half-made");
    const held = { ...half, lockIsStale: false };
    expect(() => planRestore(order(), facts({ observed: held, ownHalf: true }))).toThrow("locked (create)");
  });
});

describe("a container of another member", () => {
  const elsewhere = { where: "elsewhere", node: "pve1", type: "lxc" } as const;
  const takeOver = (change: Partial<RestoreOrder>, more: Partial<RestoreFacts> = {}) =>
    planRestore(
      order({ takeOverFrom: "pve1", ...change }),
      facts({ observed: elsewhere, dead: here({ generation: 1n, running: true }), ...more }),
    );
  test("is taken over when the member is dead and the pod's container can be had", () => {
    expect(takeOver({})).toEqual({ kind: "take-over", from: "pve1" });
    expect(takeOver({ volumeId: "" }, { diskIsShared: true })).toEqual({ kind: "take-over", from: "pve1" });
  });
  test("is left there otherwise", () => {
    expect(() => takeOver({}, { dead: here({ more: "mp0: shared:102/y.raw,mp=/y" }) })).toThrow("has mp0");
    expect(() => takeOver({}, { deadIsOnline: true })).toThrow("is seen by the cluster");
    expect(() => takeOver({ volumeId: "" })).toThrow("is local to node");
    expect(() => takeOver({ takeOverFrom: "pve3" })).toThrow("is on node pve1");
    expect(() => takeOver({}, { dead: here({ owner: "" }) })).toThrow("carries no marker");
    expect(() => takeOver({}, { dead: here({ generation: 3n }) })).toThrow("generation 3");
  });
});
