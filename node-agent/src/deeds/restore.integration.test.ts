import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
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
  volumesOf,
  wishFor,
} from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";
import { runTool } from "../../../test/simulated-host/run-tool.ts";
import { asFailure } from "../containers/container-failure.ts";
import type { RestoreOrder } from "../containers/containers.ts";

let cluster: ClusterFixture;
let one: Fixture;
let two: Fixture;

beforeAll(async () => {
  cluster = await createCluster();
  ({ one, two } = cluster);
});
afterEach(async () => {
  for (const fixture of [one, two]) {
    fixture.host.clearFaults();
    await fixture.host.reboot();
    for (const [vmid, podId] of [[VMID, POD_ID] as const, [VMID + 1, OTHER_POD_ID] as const]) {
      if (configOf(fixture, vmid) === undefined) continue;
      const gone = wishFor({ vmid, podId, present: false, generation: 99n });
      await fixture.containers.converge(gone, bounds({ absentBefore: true }));
    }
    rmSync(join(fixture.host.paths.storageRoot, "local-lvm", `vm-${VMID}-disk-0`), { recursive: true, force: true });
  }
});
afterAll(() => cluster.dispose());

const OTHER_POD_ID = POD_ID.replace(/1$/u, "2");
const spec = (fixture: Fixture, storage = "local-lvm") => cloneSpec(fixture.host, { storage });
const order = (volumeId: string, change: Partial<RestoreOrder> = {}): RestoreOrder => ({
  ...FIRST,
  generation: 2n,
  volumeId,
  spec: { ...spec(one), source: undefined },
  overwrite: false,
  takeOverFrom: "",
  ...change,
});

/** A file in the container's root, which backups carry. */
function dataFile(fixture: Fixture, vmid = VMID): string {
  const volume = configOf(fixture, vmid)?.options.get("rootfs")?.split(",")[0]?.split(":") ?? [];
  const [storage = "", name = ""] = volume;
  const root = storage === "shared" ? join(fixture.host.root, "../../..", "unknown") : fixture.host.paths.storageRoot;
  return join(root, storage, name, "rootfs", "etc", "data");
}

/** A stopped or running container with the data "old", and its archive on the storage that all members see. */
async function makeWithBackup(power: Power, storage = "local-lvm"): Promise<string> {
  await one.containers.converge(runningWish(spec(one, storage)), bounds());
  if (storage !== "shared") writeFileSync(dataFile(one), "old");
  const backup = { ...FIRST, backupId: randomUUID(), storage: "shared", mode: "snapshot" };
  const made = await one.containers.backUp(backup, deedOptions());
  if (power === Power.POWER_STOPPED) await one.containers.converge(wishFor({ power }), bounds());
  return made.backup?.volumeId ?? "";
}

const restores = async (fixture: Fixture): Promise<number> =>
  (await fixture.host.invocations()).filter(({ argv }) => argv.includes("restore")).length;

describe("a restore", () => {
  it("on another host makes the pod's container with its MAC and name, stopped, under the new generation", async () => {
    const volumeId = await makeWithBackup(Power.POWER_STOPPED);
    await one.containers.converge(wishFor({ present: false }), bounds());
    const { backup, observation } = await two.containers.restore(order(volumeId), deedOptions());
    expect(backup).toMatchObject({ volumeId, found: true, restored: true });
    expect(observation).toMatchObject({
      podId: POD_ID,
      generation: 2n,
      power: Power.POWER_STOPPED,
      mac: "BC:24:11:00:00:01",
      hostname: "pod-1.example.org",
      diskGb: 4,
      lock: "",
    });
    expect(readFileSync(dataFile(two), "utf8")).toBe("old");
    expect(configOf(two, VMID)?.options.get("onboot") ?? "0").toBe("0");
    const wish = runningWish(spec(two), { generation: 2n });
    expect((await two.containers.converge(wish, bounds())).observation?.power).toBe(Power.POWER_RUNNING);
  });

  it("as a new pod has the identity that the order gives", async () => {
    const volumeId = await makeWithBackup(Power.POWER_RUNNING);
    const network = { ...spec(one).network, mac: "BC:24:11:00:00:99" } as RestoreOrder["spec"]["network"];
    const fresh = { ...spec(one), source: undefined, hostname: "copy", network };
    const change = { podId: OTHER_POD_ID, vmid: VMID + 1, generation: 1n, spec: fresh };
    const { observation } = await one.containers.restore(order(volumeId, change), deedOptions());
    expect(observation).toMatchObject({ podId: OTHER_POD_ID, mac: "BC:24:11:00:00:99", hostname: "copy" });
    expect(await runsOn(one, VMID)).toBe(true);
  });

  it("in place replaces the pod's own stopped container, once for each command", async () => {
    const volumeId = await makeWithBackup(Power.POWER_STOPPED);
    writeFileSync(dataFile(one), "newer");
    const command = { commandId: randomUUID() };
    const wanted = order(volumeId, { generation: 1n, overwrite: true });
    await one.containers.restore(wanted, deedOptions(command));
    expect(readFileSync(dataFile(one), "utf8")).toBe("old");
    expect(volumesOf(one, VMID)).toHaveLength(1);
    writeFileSync(dataFile(one), "written since");
    const before = await restores(one);
    const again = await one.restart().restore(wanted, deedOptions(command));
    expect([again.backup?.restored, await restores(one)]).toEqual([true, before]);
    expect(readFileSync(dataFile(one), "utf8")).toBe("written since");
  });

  it("touches nothing that it was not allowed to", async () => {
    const volumeId = await makeWithBackup(Power.POWER_RUNNING);
    const impossible = { ...order(volumeId).spec, hostname: "--force" };
    const refused: [Partial<RestoreOrder>, string][] = [
      [{}, "STILL_RUNNING"],
      [{ overwrite: true }, "STILL_RUNNING"],
      [{ overwrite: true, podId: OTHER_POD_ID }, "VMID_CONFLICT"],
      [{ overwrite: true, generation: 0n }, "STALE_GENERATION"],
      [{ overwrite: true, vmid: one.host.templateVmid }, "VMID_CONFLICT"],
      [{ volumeId: "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst" }, "NOT_AN_ARCHIVE"],
      [{ volumeId: "--unique=1" }, "NOT_AN_ARCHIVE"],
      [{ spec: impossible }, "INVALID_ARGUMENT"],
      [{ spec: { ...order(volumeId).spec, unprivileged: false } }, "UNPRIVILEGED_MISMATCH"],
    ];
    const before = await restores(one);
    for (const [change, code] of refused) {
      await expect(one.containers.restore(order(volumeId, change), deedOptions())).rejects.toMatchObject({ code });
    }
    expect([await runsOn(one, VMID), await restores(one)]).toEqual([true, before]);
    await one.containers.converge(wishFor({ power: Power.POWER_STOPPED }), bounds());
    await expect(one.containers.restore(order(volumeId), deedOptions())).rejects.toMatchObject({
      code: "CONTAINER_EXISTS",
    });
    const missing = volumeId.replace(/-\d{4}_/u, "-1999_");
    await expect(one.containers.restore(order(missing, { overwrite: true }), deedOptions())).rejects.toMatchObject({
      code: "BACKUP_MISSING",
    });
    const over = order(volumeId, { overwrite: true });
    const told = { code: "MORE_THAN_A_POD", message: expect.stringContaining("snapshot:before-upgrade") };
    // Made while the restore, which has looked already, has not had its turn.
    let isMade = false;
    const onProgress = () => {
      if (!isMade) execFileSync(one.paths.pctPath, ["snapshot", String(VMID), "before-upgrade"], { stdio: "ignore" });
      isMade = true;
    };
    await expect(one.containers.restore(over, deedOptions({ onProgress }))).rejects.toMatchObject(told);
    expect(isMade).toBe(true);
    await expect(one.containers.restore(over, deedOptions())).rejects.toMatchObject(told);
    await expect(one.containers.checkRestore(over)).rejects.toMatchObject(told);
    const restoring = Command.fromPartial({ ...over, op: { $case: "restore", value: over } });
    expect(await one.containers.planCommands([restoring])).toMatchObject([{ commandLines: [], error: told }]);
    await runTool(one.paths.pctPath, "delsnapshot", String(VMID), "before-upgrade");
    await one.containers.checkRestore(over);
    expect([lockOf(one, VMID), readFileSync(dataFile(one), "utf8")]).toEqual([undefined, "old"]);
  });

  it("in place is refused without room for a second disk, as the storage is at that moment, with nothing done", async () => {
    const volumeId = await makeWithBackup(Power.POWER_RUNNING);
    const wanted = order(volumeId, { overwrite: true });
    // That the container runs is nothing against it: it is stopped for the restore later.
    await one.containers.checkRestore(wanted);
    const before = await restores(one);
    one.host.setFaults([{ storageFull: "local-lvm" }]);
    await expect(one.containers.checkRestore(wanted)).rejects.toMatchObject({ code: "STORAGE_FULL", retryable: false });
    one.host.setFaults([{ storageOffline: "local-lvm" }]);
    const unknown = { code: "STORAGE_UNAVAILABLE", retryable: true };
    await expect(one.containers.checkRestore(wanted)).rejects.toMatchObject(unknown);
    one.host.clearFaults();
    await one.containers.converge(wishFor({ power: Power.POWER_STOPPED }), bounds());
    one.host.setFaults([{ storageFull: "local-lvm" }]);
    const failure = await one.containers.restore(wanted, deedOptions()).catch(asFailure);
    expect(failure).toMatchObject({ code: "STORAGE_FULL", message: expect.stringContaining("has 0 GB left") });
    expect([failure.observation?.podId, await restores(one), volumesOf(one, VMID).length]).toEqual([POD_ID, before, 1]);
    // A new container has nothing to give up, and a thin pool may promise more than it has.
    await one.containers.checkRestore(order(volumeId, { podId: OTHER_POD_ID, vmid: VMID + 1, overwrite: true }));
  });

  /** What a storage says that has room, whatever is true. */
  const roomy = "Name Type Status Total Used Available %\nlocal-lvm lvmthin active 104857600 0 104857600 0.00%\n";
  // Proxmox gives the former container up before it unpacks anything, and its entry when there is no room for a disk more.
  it.each([
    [
      "for want of room that its storage had promised",
      [
        { storageFull: "local-lvm" },
        { match: { program: "pvesm", command: "status" }, effect: { kind: "lie", stdout: roomy } },
      ],
      "STORAGE_FULL",
      1,
    ],
    [
      "in the middle",
      [{ match: { command: "restore" }, effect: { kind: "fail-at", point: "half-extracted", message: "tar: broken" } }],
      "UNKNOWN_ERROR",
      0,
    ],
  ] as const)(
    "in place that fails %s has no container to show, and makes it when asked again",
    async (_, faults, code, disksLeft) => {
      const volumeId = await makeWithBackup(Power.POWER_STOPPED);
      one.host.setFaults([...faults]);
      const failure = await one.containers
        .restore(order(volumeId, { overwrite: true }), deedOptions())
        .catch(asFailure);
      expect(failure).toMatchObject({ code, retryable: false, observation: undefined });
      expect([configOf(one, VMID), volumesOf(one, VMID).length]).toEqual([undefined, disksLeft]);
      one.host.clearFaults();
      const start = wishFor({ power: Power.POWER_RUNNING, generation: 2n });
      await expect(one.containers.converge(start, bounds())).rejects.toMatchObject({ code: "CONTAINER_MISSING" });
      const { backup } = await one.containers.restore(order(volumeId, { overwrite: true }), deedOptions());
      expect([backup?.restored, readFileSync(dataFile(one), "utf8")]).toEqual([true, "old"]);
    },
  );

  it.each([
    ["half-extracted", false],
    ["before-exit", false],
    ["half-extracted", true],
  ])("whose program is killed at %s (in place: %s) is whole in the end", async (point, overwrite) => {
    const volumeId = await makeWithBackup(Power.POWER_STOPPED);
    const fixture = overwrite ? one : two;
    if (!overwrite) await one.containers.converge(wishFor({ present: false }), bounds());
    fixture.host.setFaults([
      { match: { command: "restore" }, effect: { kind: "die-at", point, signal: "KILL" }, times: 1 },
    ]);
    await fixture.containers.restore(order(volumeId, { overwrite }), deedOptions());
    expect(readFileSync(dataFile(fixture), "utf8")).toBe("old");
    expect([lockOf(fixture, VMID), configOf(fixture, VMID)?.description.includes("generation=2")]).toEqual([
      undefined,
      true,
    ]);
    const wish = runningWish(spec(fixture), { generation: 2n });
    await fixture.containers.converge(wish, bounds());
  });

  it("that is only claimed, or killed every time, is an error and leaves nothing", async () => {
    const volumeId = await makeWithBackup(Power.POWER_STOPPED);
    await one.containers.converge(wishFor({ present: false }), bounds());
    two.host.setFaults([{ match: { command: "restore" }, effect: { kind: "lie" } }]);
    await expect(two.containers.restore(order(volumeId), deedOptions())).rejects.toMatchObject({
      code: "STEP_WITHOUT_EFFECT",
    });
    const effect = { kind: "die-at", point: "half-extracted", signal: "KILL" } as const;
    two.host.setFaults([{ match: { command: "restore" }, effect }]);
    await expect(two.containers.restore(order(volumeId), deedOptions())).rejects.toMatchObject({ code: "INTERRUPTED" });
    expect([configOf(two, VMID), volumesOf(two, VMID)]).toEqual([undefined, []]);
  });
});

describe("a container of a dead member", () => {
  const dead = (): void => two.host.setFaults([{ memberOffline: "pve1" }]);

  it("on a shared disk is taken over as it is: nothing is restored over it", async () => {
    const volumeId = await makeWithBackup(Power.POWER_STOPPED, "shared");
    const wanted = order(volumeId, { takeOverFrom: "pve1", spec: { ...spec(two, "shared"), source: undefined } });
    await expect(two.containers.restore(wanted, deedOptions())).rejects.toMatchObject({ code: "MEMBER_ONLINE" });
    await expect(two.containers.checkRestore(wanted)).rejects.toMatchObject({ code: "MEMBER_ONLINE" });
    expect(configOf(one, VMID)).toBeDefined();
    dead();
    // It says so with nothing done.
    await two.containers.checkRestore(wanted);
    expect(configOf(one, VMID)).toBeDefined();
    const { backup, observation } = await two.containers.restore(wanted, deedOptions());
    expect([backup?.restored, observation?.generation, await restores(two)]).toEqual([false, 2n, await restores(two)]);
    expect([configOf(one, VMID), existsSync(join(two.paths.pveRoot, "lxc", `${VMID}.conf`))]).toEqual([
      undefined,
      true,
    ]);
    // Asked again, by the same command or another, it is there.
    const again = await two.restart().restore({ ...wanted, volumeId: "" }, deedOptions());
    expect(again.observation).toMatchObject({ generation: 2n, storage: "shared" });
    const wish = runningWish(spec(two, "shared"), { generation: 2n });
    expect((await two.containers.converge(wish, bounds())).observation?.power).toBe(Power.POWER_RUNNING);
  });

  it("on a local disk is restored in its place, and not touched without an archive", async () => {
    const volumeId = await makeWithBackup(Power.POWER_STOPPED);
    dead();
    const wanted = order(volumeId, { takeOverFrom: "pve1" });
    const refused: [Partial<RestoreOrder>, string][] = [
      [{ volumeId: "" }, "DISK_NOT_SHARED"],
      [{ volumeId: volumeId.replace("lxc-100001-20", "lxc-100001-19") }, "BACKUP_MISSING"],
      [{ takeOverFrom: "" }, "ON_OTHER_NODE"],
      [{ podId: OTHER_POD_ID }, "VMID_CONFLICT"],
      [{ generation: 0n }, "STALE_GENERATION"],
    ];
    for (const [change, code] of refused) {
      const restoring = two.containers.restore({ ...wanted, ...change }, deedOptions());
      await expect(restoring).rejects.toMatchObject({ code });
      // The archive itself is read by a command of its own.
      if (code === "BACKUP_MISSING") continue;
      await expect(two.containers.checkRestore({ ...wanted, ...change })).rejects.toMatchObject({ code });
    }
    two.host.setFaults([{ memberOffline: "pve1" }, { noQuorum: true }]);
    await expect(two.containers.checkRestore(wanted)).rejects.toMatchObject({ code: "NO_QUORUM" });
    dead();
    expect(configOf(one, VMID)).toBeDefined();
    // The first program dies in the middle of the takeover.
    const effect = { kind: "die-at", point: "half-extracted", signal: "KILL" } as const;
    two.host.setFaults([{ memberOffline: "pve1" }, { match: { command: "restore" }, effect, times: 1 }]);
    const { backup } = await two.containers.restore(wanted, deedOptions());
    expect([backup?.restored, configOf(one, VMID), lockOf(two, VMID)]).toEqual([true, undefined, undefined]);
    expect(readFileSync(dataFile(two), "utf8")).toBe("old");
  });

  it("is not taken over without quorum", async () => {
    const volumeId = await makeWithBackup(Power.POWER_STOPPED, "shared");
    two.host.setFaults([{ noQuorum: true }]);
    const patience = { baseMs: 50, capMs: 100, clusterMs: 200, lockMs: 200 };
    const wanted = order(volumeId, { takeOverFrom: "pve1" });
    await expect(two.restart({ patience }).restore(wanted, deedOptions())).rejects.toMatchObject({ code: "NO_QUORUM" });
    expect(configOf(one, VMID)).toBeDefined();
  });
});
