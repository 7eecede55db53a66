import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  POD_ID,
  VMID,
  bounds,
  cloneSpec,
  createFixture,
  lockOf,
  runningWish,
} from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";
import { until } from "../../../test/support/until.ts";
import type { ContainerFailure } from "../containers/container-failure.ts";
import type { BackupOrder, DeedOptions } from "../containers/containers.ts";
import { createOperationRunner } from "../pct/operation-runner.ts";

let fixture: Fixture;
/** Times at which what a container used was read because something was about to stop it. */
let finalSamples: number;

let dumpsBefore: number;

beforeAll(async () => {
  fixture = await createFixture();
  await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
});
beforeEach(async () => {
  fixture.host.clearFaults();
  rmSync(dumpFolder(), { recursive: true, force: true });
  finalSamples = 0;
  dumpsBefore = 0;
  dumpsBefore = await dumps();
});
afterAll(() => fixture.dispose());

const BACKUP_ID = "0193a5b0-3333-7abc-8def-000000000001";
const pod = { podId: POD_ID, vmid: VMID, fleetEpoch: 1n, generation: 1n };
const order = (change: Partial<BackupOrder> = {}): BackupOrder => ({
  ...pod,
  backupId: BACKUP_ID,
  storage: "local",
  mode: "stop",
  ...change,
});
const options = (change: Partial<DeedOptions> = {}): DeedOptions => ({
  ...bounds(change),
  beforeStop: async () => void (finalSamples += 1),
  ...change,
});

const dumpFolder = (): string => join(fixture.host.paths.storageRoot, "local/dump");
const dumpFiles = (): string[] => (existsSync(dumpFolder()) ? readdirSync(dumpFolder()) : []);
const archives = (): string[] => dumpFiles().filter((name) => name.endsWith(".tar.zst"));
const isRunning = async (): Promise<boolean> =>
  (await fixture.host.containers()).some(({ vmid, running }) => vmid === VMID && running);
const dumps = async (): Promise<number> =>
  (await fixture.host.invocations()).filter(({ argv }) => argv[0] === "vzdump").length - dumpsBefore;

/** The process of a look of the agent with this word. */
const pidOf = (word: string): number | undefined =>
  createOperationRunner(fixture.operationsDir)
    .recorded(0)
    .find(({ argv }) => argv.includes(word))?.process?.pid;

/** The host's list of tasks tells of a backup of many guests, whose worker is this very process. @returns ends it */
function pretendBackup(): () => void {
  const stat = readFileSync(`/proc/${process.pid}/stat`, "utf8");
  const start = BigInt(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? 0);
  const hex = (value: bigint | number): string => value.toString(16).toUpperCase().padStart(8, "0");
  const active = join(fixture.paths.taskLogRoot, "active");
  const before = existsSync(active) ? readFileSync(active, "utf8") : "";
  writeFileSync(active, `UPID:pve1:${hex(process.pid)}:${hex(start)}:6B00F032:vzdump::root@pam: 0\n${before}`);
  const folder = join(fixture.paths.procRoot, String(process.pid));
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "stat"), stat);
  return () => writeFileSync(active, before);
}

describe("a backup", () => {
  it("is made once for each identity, tells its archive, and the container runs afterwards", async () => {
    const { backup, observation } = await fixture.containers.backUp(order(), options());
    expect(backup).toMatchObject({ found: true, volumeId: `local:backup/${archives()[0]}` });
    expect(backup?.sizeBytes).toBeGreaterThan(0n);
    expect(Math.abs(Number(backup?.createdAtMs) - Date.now())).toBeLessThan(60_000);
    expect([observation?.power, observation?.lock, finalSamples]).toEqual([Power.POWER_RUNNING, "", 1]);
    const again = await fixture.restart().backUp(order(), options());
    expect([again.backup, archives().length, await dumps()]).toEqual([backup, 1, 1]);
    // Another identity is another archive, and nothing is pruned for it.
    await fixture.containers.backUp(order({ backupId: BACKUP_ID.replace(/1$/u, "2") }), options());
    expect(archives()).toHaveLength(2);
  });

  it("in mode snapshot stops nothing", async () => {
    await fixture.containers.backUp(order({ mode: "snapshot" }), options());
    expect([finalSamples, archives().length]).toEqual([0, 1]);
  });

  describe("in mode shut-down", () => {
    const shutDown = (change: Partial<BackupOrder> = {}) => order({ mode: "shut-down", ...change });
    const start = () => fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    afterEach(start);

    it("leaves the container stopped, tells since when, and says the words of its plan", async () => {
      const command = Command.fromPartial({ ...pod, op: { $case: "backup", value: shutDown() } });
      const [plan] = await fixture.containers.planCommands([command]);
      const fromMs = Date.now();
      const { backup, commandLines } = await fixture.containers.backUp(shutDown(), options());
      expect(plan?.commandLines.map((line) => line.split(" ")[0]?.split("/").at(-1))).toEqual(["pct", "vzdump"]);
      expect(commandLines.filter((line) => !line.includes("pvesm"))).toEqual(plan?.commandLines);
      expect(Number(backup?.stoppedAtMs)).toBeGreaterThanOrEqual(fromMs - 1_000);
      expect(Number(backup?.stoppedAtMs)).toBeLessThanOrEqual(Number(backup?.createdAtMs) + 1_000);
      expect([finalSamples, archives().length, await isRunning()]).toEqual([1, 1, false]);
      // Asked again, the archive is the same; once the guest has gone on it is no longer all that there is.
      expect((await fixture.restart().backUp(shutDown(), options())).backup?.volumeId).toBe(backup?.volumeId);
      await start();
      const later = await fixture.containers.backUp(shutDown(), options());
      expect(later.backup?.volumeId).not.toBe(backup?.volumeId);
      expect([archives().length, await isRunning()]).toEqual([1, false]);
    });

    it("lets it run while another backup of the host is under way, and runs it again when none was made", async () => {
      const impatient = fixture.restart({ patience: { baseMs: 50, capMs: 100, clusterMs: 200, lockMs: 400 } });
      const end = pretendBackup();
      await expect(impatient.backUp(shutDown(), options())).rejects.toMatchObject({
        code: "LOCKED",
        retryable: true,
        move: undefined,
      });
      end();
      expect([finalSamples, await dumps(), await isRunning()]).toEqual([0, 0, true]);
      fixture.host.setFaults([{ storageFull: "local" }]);
      const failure: unknown = await fixture.containers.backUp(shutDown(), options()).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: "STORAGE_FULL", move: { power: Power.POWER_RUNNING } });
      expect((failure as ContainerFailure).move?.downtimeMs).toBeGreaterThan(0n);
      expect([dumpFiles(), await isRunning()]).toEqual([[], true]);
    });
  });

  it("of what is not the pod's, or with words that are none, is refused", async () => {
    const refused: [Partial<BackupOrder>, string][] = [
      [{ podId: POD_ID.replace(/1$/u, "9") }, "VMID_CONFLICT"],
      [{ generation: 0n }, "STALE_GENERATION"],
      [{ mode: "--stdout=1" }, "INVALID_ARGUMENT"],
      [{ storage: "no-such" }, "STORAGE_MISSING"],
      [{ storage: "local-lvm" }, "STORAGE_UNSUITABLE"],
      [{ backupId: "{{guestname}}" }, "INVALID_ARGUMENT"],
    ];
    for (const [change, code] of refused) {
      await expect(fixture.containers.backUp(order(change), options())).rejects.toMatchObject({ code });
    }
    expect([archives(), await isRunning()]).toEqual([[], true]);
  });

  it("of a container whose other volumes it would not hold is refused before anything stops", async () => {
    const file = join(fixture.paths.pveRoot, "nodes/pve1/lxc", `${VMID}.conf`);
    const before = readFileSync(file, "utf8");
    const refused = { code: "MORE_THAN_A_POD", retryable: false };
    try {
      writeFileSync(file, before.replace("rootfs:", "mp0: local-lvm:vm-7-disk-1,mp=/data,size=200G\nrootfs:"));
      for (const mode of ["stop", "snapshot", "shut-down"]) {
        await expect(fixture.containers.backUp(order({ mode }), options())).rejects.toMatchObject(refused);
      }
      writeFileSync(file, before.replace("rootfs:", "unused0: local-lvm:vm-7-disk-1\nrootfs:"));
      const move = order({ mode: "shut-down" });
      await expect(fixture.containers.backUp(move, options())).rejects.toMatchObject(refused);
      const command = Command.fromPartial({ ...pod, op: { $case: "backup", value: move } });
      const [plan] = await fixture.containers.planCommands([command]);
      expect(plan?.error).toMatchObject(refused);
      expect([finalSamples, await dumps(), dumpFiles(), await isRunning()]).toEqual([0, 0, [], true]);
      await fixture.containers.backUp(order({ mode: "snapshot" }), options());
      expect(archives()).toHaveLength(1);
    } finally {
      writeFileSync(file, before);
    }
  });

  it("on a full storage fails with that reason and leaves the container running", async () => {
    fixture.host.setFaults([{ storageFull: "local" }]);
    await expect(fixture.containers.backUp(order(), options())).rejects.toMatchObject({ code: "STORAGE_FULL" });
    expect([dumpFiles(), await isRunning(), lockOf(fixture, VMID)]).toEqual([[], true, undefined]);
  });

  it("without quorum does not begin", async () => {
    const impatient = fixture.restart({ patience: { baseMs: 50, capMs: 100, clusterMs: 200, lockMs: 200 } });
    fixture.host.setFaults([{ noQuorum: true }]);
    await expect(impatient.backUp(order(), options())).rejects.toMatchObject({ code: "NO_QUORUM", retryable: true });
    expect(await dumps()).toBe(0);
  });

  it("waits for another job of the host and for a lock, and breaks a lock that nobody holds", async () => {
    const busy = "can't acquire lock '/var/run/vzdump.lock' - got timeout\n";
    fixture.host.setFaults([
      { match: { program: "vzdump" }, effect: { kind: "exit", code: 255, stderr: busy }, times: 1 },
    ]);
    fixture.host.leaveLock(VMID, "snapshot-delete");
    await fixture.containers.backUp(order(), options());
    expect([archives().length, await dumps(), lockOf(fixture, VMID)]).toEqual([1, 2, undefined]);
  });

  it("that vzdump only claims to have made is an error; one that it made and complains about is none", async () => {
    fixture.host.setFaults([{ match: { program: "vzdump" }, effect: { kind: "lie" }, times: 1 }]);
    await expect(fixture.containers.backUp(order(), options())).rejects.toMatchObject({ code: "STEP_WITHOUT_EFFECT" });
    fixture.host.setFaults([
      { match: { program: "vzdump" }, effect: { kind: "fail-after", code: 255, stderr: "job errors" }, times: 1 },
    ]);
    const { backup } = await fixture.containers.backUp(order(), options());
    expect(backup?.found).toBe(true);
  });

  it.each(["after-reserve", "after-stop", "half-extracted", "after-archive"])(
    "whose vzdump is killed %s leaves no half, no lock and a container that runs; the next try makes one",
    async (point) => {
      fixture.host.setFaults([
        { match: { program: "vzdump" }, effect: { kind: "die-at", point, signal: "KILL" }, times: 1 },
      ]);
      const made = await fixture.containers.backUp(order(), options()).then(
        () => true,
        (error: unknown) => {
          expect(error).toMatchObject({ code: "INTERRUPTED", retryable: true });
          return false;
        },
      );
      expect(made).toBe(point === "after-archive");
      expect([await isRunning(), lockOf(fixture, VMID)]).toEqual([true, undefined]);
      expect(dumpFiles().filter((name) => name.includes(".dat"))).toEqual([]);
      await fixture.containers.backUp(order(), options());
      expect(archives()).toHaveLength(1);
    },
  );

  it("that is cancelled is taken back, and the container runs", async () => {
    fixture.host.setFaults([{ match: { program: "vzdump" }, effect: { kind: "delay", ms: 5_000 } }]);
    const signal = AbortSignal.timeout(1_000);
    await expect(fixture.containers.backUp(order(), options({ signal }))).rejects.toMatchObject({ code: "CANCELLED" });
    expect([dumpFiles(), await isRunning()]).toEqual([[], true]);
  });
});

describe("an archive", () => {
  const made = async (): Promise<string> =>
    (await fixture.containers.backUp(order({ mode: "snapshot" }), options())).backup?.volumeId ?? "";

  it("is read to its end: whole, damaged, cut, gone", async () => {
    const volumeId = await made();
    const path = join(dumpFolder(), archives()[0] ?? "");
    const verify = async () => (await fixture.containers.verifyBackup({ vmid: VMID, volumeId }, bounds())).backup;
    expect(await verify()).toMatchObject({ found: true, readable: true });
    const bytes = readFileSync(path);
    const harmed = Buffer.from(bytes);
    harmed[Math.floor(harmed.length / 2)] = (harmed[Math.floor(harmed.length / 2)] ?? 0) ^ 0xff;
    writeFileSync(path, harmed);
    expect(await verify()).toMatchObject({ found: true, readable: false });
    writeFileSync(path, bytes);
    truncateSync(path, bytes.length - 1);
    expect(await verify()).toMatchObject({ found: true, readable: false });
    truncateSync(path, 0);
    expect(await verify()).toMatchObject({ found: true, readable: false, sizeBytes: 0n });
    await fixture.containers.deleteBackup({ vmid: VMID, volumeId }, bounds());
    expect(await verify()).toMatchObject({ found: false, readable: false });
  });

  it("that a container stands still for is read before others have been", async () => {
    const volumeId = await made();
    fixture.host.setFaults([{ match: { program: "zstd" }, effect: { kind: "delay", ms: 4_000 }, times: 1 }]);
    const ended: string[] = [];
    const read = async (name: string, atOnce: boolean) => {
      await fixture.containers.verifyBackup({ vmid: VMID, volumeId, atOnce }, bounds());
      ended.push(name);
    };
    const reads = async () => (await fixture.host.invocations()).filter(({ argv }) => argv[0] === "zstd").length;
    const before = await reads();
    const first = read("first", false);
    await until("the first is being read", async () => (await reads()) > before);
    const pid = await until("its process", () => pidOf("--test"));
    // However long the others take, it stands still for them.
    process.kill(pid, "SIGSTOP");
    const waits = read("waits", false);
    await read("at once", true).finally(() => process.kill(pid, "SIGCONT"));
    await Promise.all([first, waits]);
    expect(ended).toEqual(["at once", "first", "waits"]);
  });

  it("on a storage that is away is neither there nor gone", async () => {
    const volumeId = await made();
    fixture.host.setFaults([{ storageOffline: "local" }]);
    const failure = { code: "STORAGE_UNAVAILABLE", retryable: true };
    await expect(fixture.containers.verifyBackup({ vmid: VMID, volumeId }, bounds())).rejects.toMatchObject(failure);
    await expect(fixture.containers.deleteBackup({ vmid: VMID, volumeId }, bounds())).rejects.toMatchObject(failure);
  });

  it("is removed with its notes and log, however often that is asked for", async () => {
    const volumeId = await made();
    for (const _ of [1, 2]) {
      const { backup } = await fixture.containers.deleteBackup({ vmid: VMID, volumeId }, bounds());
      expect(backup).toMatchObject({ volumeId, found: false });
    }
    expect(dumpFiles()).toEqual([]);
  });

  it("that is none of the container is not removed", async () => {
    for (const volumeId of [
      "local-lvm:vm-100001-disk-0",
      "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst",
      "local:backup/vzdump-lxc-100002-2026_11_21-00_35_12.tar.zst",
      "local:backup/vzdump-qemu-100001-2026_11_21-00_35_12.vma.zst",
      "local:backup/../vzdump-lxc-100001-2026_11_21-00_35_12.tar.zst",
      "--storage=local",
      "",
    ]) {
      const removing = fixture.containers.deleteBackup({ vmid: VMID, volumeId }, bounds());
      await expect(removing).rejects.toMatchObject({ code: "NOT_AN_ARCHIVE" });
    }
  });

  it("that a lying pvesm leaves there is not said to be removed", async () => {
    const volumeId = await made();
    fixture.host.setFaults([{ match: { program: "pvesm", command: "free" }, effect: { kind: "lie" } }]);
    await expect(fixture.containers.deleteBackup({ vmid: VMID, volumeId }, bounds())).rejects.toMatchObject({
      code: "STEP_WITHOUT_EFFECT",
    });
    fixture.host.setFaults([
      { match: { program: "pvesm", command: "free" }, effect: { kind: "fail-after", code: 255, stderr: "odd" } },
    ]);
    expect((await fixture.containers.deleteBackup({ vmid: VMID, volumeId }, bounds())).backup?.found).toBe(false);
  });
});
