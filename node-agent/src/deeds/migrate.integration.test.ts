import { randomUUID } from "node:crypto";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { runTool } from "../../../test/simulated-host/run-tool.ts";
import { FIRST, createCluster, deedOptions, runsOn } from "../../../test/support/cluster-fixture.ts";
import type { ClusterFixture } from "../../../test/support/cluster-fixture.ts";
import {
  POD_ID,
  VMID,
  bounds,
  cloneSpec,
  configOf,
  lockOf,
  runningWish,
  wishFor,
} from "../../../test/support/container-fixture.ts";
import type { ContainerFailure } from "../containers/container-failure.ts";
import type { MigrateOrder } from "../containers/containers.ts";

let cluster: ClusterFixture;

beforeAll(async () => {
  cluster = await createCluster();
});
afterEach(async () => {
  for (const fixture of [cluster.one, cluster.two]) {
    fixture.host.clearFaults();
    if (configOf(fixture, VMID) === undefined) continue;
    await fixture.containers.converge(wishFor({ present: false, generation: 9n }), bounds());
  }
});
afterAll(() => cluster.dispose());

const order = (change: Partial<MigrateOrder> = {}): MigrateOrder => ({
  ...FIRST,
  target: "pve2",
  targetStorage: "",
  shutdownTimeoutSeconds: 5,
  ...change,
});

/** A running container on pve1: a full copy on a storage, or a linked clone on `local-lvm`. */
async function make(storage: string, full = true): Promise<void> {
  const source = { $case: "clone", value: { templateVmid: cluster.one.host.templateVmid, full } } as const;
  await cluster.one.containers.converge(runningWish(cloneSpec(cluster.one.host, { storage, source })), bounds());
}

describe("a container", () => {
  it.each(["shared", "local-lvm"])("on %s moves, runs there, and what it used is read before", async (storage) => {
    await make(storage);
    const options = deedOptions();
    const { move, observation } = await cluster.one.containers.migrate(order(), options);
    expect(move).toMatchObject({ pveName: "pve2", power: Power.POWER_RUNNING });
    expect(move?.downtimeMs).toBeGreaterThan(0n);
    expect([observation, options.stops()]).toEqual([undefined, 1]);
    expect([await runsOn(cluster.one, VMID), await runsOn(cluster.two, VMID)]).toEqual([false, true]);
    // Asked again, it is where it shall be; the target's agent takes the newer generation on.
    const again = await cluster.one.restart().migrate(order(), deedOptions());
    expect(again.move).toMatchObject({ pveName: "pve2" });
    const wish = runningWish(cloneSpec(cluster.two.host, { storage }), { generation: 2n });
    const arrived = await cluster.two.containers.converge(wish, bounds());
    expect(arrived.observation).toMatchObject({ generation: 2n, power: Power.POWER_RUNNING });
  });

  it("is said to be stopped before it is, and only then", async () => {
    await make("shared");
    const seen: string[] = [];
    const told = (what: string): void => {
      if (seen.at(-1) !== what) seen.push(what);
    };
    const options = deedOptions({
      onProgress: ({ step }) => told(step),
      beforeStop: () => Promise.resolve(told("stopping")),
    });
    await expect(cluster.one.containers.migrate(order({ target: "pve9" }), options)).rejects.toMatchObject({
      code: "NODE_MISSING",
    });
    expect(seen).toEqual([]);
    await cluster.one.containers.migrate(order(), options);
    expect(seen).toEqual(["migrate", "stopping", "migrate"]);
  });

  it("that is stopped arrives stopped and to another storage", async () => {
    await make("local-lvm");
    await cluster.one.containers.converge(wishFor({ power: Power.POWER_STOPPED }), bounds());
    const options = deedOptions();
    const { move } = await cluster.one.containers.migrate(order({ targetStorage: "shared" }), options);
    expect(move).toEqual({ pveName: "pve2", power: Power.POWER_STOPPED, downtimeMs: 0n });
    expect(options.stops()).toBe(0);
    expect(configOf(cluster.two, VMID)?.options.get("rootfs")).toMatch(/^shared:/u);
  });

  it("with a snapshot is neither migrated nor archived to be destroyed, and its host shows it", async () => {
    await make("local-lvm");
    const { pct } = cluster.one.host.paths;
    expect(await runTool(pct, "snapshot", String(VMID), "before-upgrade")).toMatchObject({ exitCode: 0 });
    const parts = { partsOfNoPod: ["snapshot:before-upgrade"] };
    await expect(cluster.one.containers.migrate(order(), deedOptions())).rejects.toMatchObject({
      code: "SNAPSHOT_NOT_MOVABLE",
      observation: parts,
    });
    const options = deedOptions();
    const backup = { ...FIRST, backupId: randomUUID(), storage: "shared" };
    await expect(cluster.one.containers.backUp({ ...backup, mode: "shut-down" }, options)).rejects.toMatchObject({
      code: "MORE_THAN_A_POD",
      message: expect.stringContaining("has snapshot:before-upgrade, which"),
      retryable: false,
    });
    expect([await runsOn(cluster.one, VMID), options.stops()]).toEqual([true, 0]);
    // What stays where it is may be archived as ever.
    const { backup: made } = await cluster.one.containers.backUp({ ...backup, mode: "snapshot" }, deedOptions());
    expect(made).toMatchObject({ found: true });
  });

  it("that is a linked clone on local storage is not stopped for nothing", async () => {
    await make("local-lvm", false);
    await expect(cluster.one.containers.migrate(order(), deedOptions())).rejects.toMatchObject({
      code: "LINKED_CLONE_NOT_MOVABLE",
      retryable: false,
      move: { pveName: "pve1", power: Power.POWER_RUNNING },
    });
    expect([await runsOn(cluster.one, VMID), lockOf(cluster.one, VMID)]).toEqual([true, undefined]);
  });

  it("is not moved by whom it does not belong to, nor to nowhere, nor without quorum", async () => {
    await make("shared");
    const refused: [Partial<MigrateOrder>, string][] = [
      [{ podId: POD_ID.replace(/1$/u, "9") }, "VMID_CONFLICT"],
      [{ generation: 0n }, "STALE_GENERATION"],
      [{ target: "pve9" }, "NODE_MISSING"],
      [{ target: "pve1" }, "INVALID_ARGUMENT"],
      [{ target: "--force=1" }, "INVALID_ARGUMENT"],
      [{ vmid: VMID + 1 }, "CONTAINER_MISSING"],
    ];
    for (const [change, code] of refused) {
      await expect(cluster.one.containers.migrate(order(change), deedOptions())).rejects.toMatchObject({ code });
    }
    cluster.one.host.setFaults([{ memberOffline: "pve2" }]);
    await expect(cluster.one.containers.migrate(order(), deedOptions())).rejects.toMatchObject({
      code: "MEMBER_OFFLINE",
    });
    cluster.one.host.setFaults([{ noQuorum: true }]);
    const patience = { baseMs: 50, capMs: 100, clusterMs: 200, lockMs: 200 };
    await expect(cluster.one.restart({ patience }).migrate(order(), deedOptions())).rejects.toMatchObject({
      code: "NO_QUORUM",
    });
    expect(await runsOn(cluster.one, VMID)).toBe(true);
  });

  it("whose guest does not shut down stays where it is and runs", async () => {
    await make("shared");
    cluster.one.host.setFaults([{ match: { command: "migrate" }, effect: { kind: "deaf-guest" } }]);
    const options = deedOptions();
    await expect(cluster.one.containers.migrate(order(), options)).rejects.toMatchObject({
      code: "SHUTDOWN_TIMEOUT",
      move: { pveName: "pve1", power: Power.POWER_RUNNING, downtimeMs: 0n },
    });
  });
});

describe("a migration", () => {
  it.each([
    ["is killed before the move", { kind: "die-at", point: "after-reserve", signal: "KILL" }, "pve1", "INTERRUPTED"],
    ["is killed right before it", { kind: "die-at", point: "before-move", signal: "KILL" }, "pve1", "INTERRUPTED"],
    ["fails before it", { kind: "fail-at", point: "before-move", message: "odd" }, "pve1", "MIGRATION_FAILED"],
    ["does nothing", { kind: "lie" }, "pve1", "STEP_WITHOUT_EFFECT"],
    ["is killed after it", { kind: "die-at", point: "after-move", signal: "KILL" }, "pve2", undefined],
    ["has problems after it", { kind: "fail-at", point: "after-move", message: "odd" }, "pve2", undefined],
    ["complains and is done", { kind: "fail-after", code: 255, stderr: "odd" }, "pve2", undefined],
  ] as const)("that %s tells where the container is, which runs there once", async (_, effect, place, code) => {
    await make("shared");
    cluster.one.host.setFaults([{ match: { command: "migrate" }, effect, times: 1 }]);
    const moving = cluster.one.containers.migrate(order(), deedOptions());
    if (code === undefined) expect((await moving).move).toMatchObject({ pveName: place });
    else {
      const failure: unknown = await moving.catch((error: unknown) => error);
      expect(failure).toMatchObject({ code, move: { pveName: place, power: Power.POWER_RUNNING } });
      // It stood still until it was started here again.
      if (code === "MIGRATION_FAILED") expect((failure as ContainerFailure).move?.downtimeMs).toBeGreaterThan(0n);
    }
    // Whoever owns it now finishes what is left.
    const fixture = place === "pve1" ? cluster.one : cluster.two;
    if (place === "pve1") expect(await runsOn(fixture, VMID)).toBe(true);
    const wish = runningWish(cloneSpec(fixture.host, { storage: "shared" }), { generation: 2n });
    await fixture.containers.converge(wish, bounds());
    expect([await runsOn(cluster.one, VMID), await runsOn(cluster.two, VMID)].filter(Boolean)).toHaveLength(1);
    expect(lockOf(fixture, VMID)).toBeUndefined();
  });
});
