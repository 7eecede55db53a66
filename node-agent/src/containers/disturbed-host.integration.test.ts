import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  QUICK,
  VMID,
  bounds,
  cloneSpec,
  configOf,
  createFixture,
  lockOf,
  runningWish,
  volumesOf,
  wishFor,
} from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";
import { until } from "../../../test/support/until.ts";
import { createOperationRunner } from "../pct/operation-runner.ts";

let fixture: Fixture;

beforeEach(async () => {
  fixture = await createFixture();
});

afterEach(() => fixture.dispose());

const run = promisify(execFile);

async function commandsRun(): Promise<string[]> {
  return (await fixture.host.invocations()).map(({ argv }) => argv.slice(0, 2).join(" "));
}

describe("without quorum", () => {
  it("nothing is changed: least of all is anything destroyed", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    fixture.host.setFaults([{ noQuorum: true }]);
    const impatient = fixture.restart({ patience: { clusterMs: 500 } });
    const before = (await commandsRun()).length;
    for (const wish of [
      wishFor({ present: false }),
      wishFor({ power: Power.POWER_RUNNING }),
      wishFor({ spec: cloneSpec(fixture.host, { diskGb: 8, cores: 4 }) }),
      wishFor({ vmid: VMID + 1, spec: cloneSpec(fixture.host) }),
    ]) {
      await expect(impatient.converge(wish, bounds())).rejects.toMatchObject({ code: "NO_QUORUM", retryable: true });
    }
    expect((await commandsRun()).length).toBe(before);
    expect(volumesOf(fixture, VMID)).toHaveLength(1);
    expect((await fixture.containers.inventory()).quorate).toBe(false);
    // What is looked at and already right needs no quorum.
    await impatient.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    // The loss that the check prevents: the disk goes, the entry stays.
    await expect(run(fixture.paths.pctPath, ["destroy", String(VMID)])).rejects.toThrow("Permission denied");
    expect(volumesOf(fixture, VMID)).toEqual([]);
    expect(configOf(fixture, VMID)).toBeDefined();
  });

  it("a moment of it is waited out", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    fixture.host.setFaults([{ noQuorum: true }]);
    const patient = fixture.restart({ patience: { ...QUICK.patience, clusterMs: 60_000 } });
    const gone = patient.converge(wishFor({ present: false }), bounds());
    await pause(300);
    fixture.host.clearFaults();
    expect((await gone).observation).toBeUndefined();
    expect(volumesOf(fixture, VMID)).toEqual([]);
  });
});

describe("without the cluster file system", () => {
  it("nothing is known: its empty folder is never read as a host without containers", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    fixture.host.setFaults([{ pmxcfsDown: true }]);
    expect(readdirSync(fixture.paths.pveRoot)).toEqual([]);
    const impatient = fixture.restart({ patience: { clusterMs: 500 } });
    expect(await impatient.inventory()).toMatchObject({ known: false, containers: [], foreignVmids: [] });
    await expect(impatient.observe(VMID)).rejects.toMatchObject({ code: "HOST_UNKNOWN", retryable: true });
    // Not "gone" and not "free".
    await expect(impatient.converge(wishFor({ present: false }), bounds())).rejects.toMatchObject({
      code: "HOST_UNKNOWN",
    });
    const recorded: string[] = [];
    const wish = wishFor({ vmid: VMID + 1, spec: cloneSpec(fixture.host) });
    const journal = { recordAbsent: () => void recorded.push("absent") };
    await expect(impatient.converge(wish, bounds(journal))).rejects.toMatchObject({ code: "HOST_UNKNOWN" });
    expect(recorded).toEqual([]);
    // Not even when somebody once copied files below the mount point.
    mkdirSync(join(fixture.paths.pveRoot, "local"));
    mkdirSync(join(fixture.paths.pveRoot, "nodes/pve1/lxc"), { recursive: true });
    writeFileSync(join(fixture.paths.pveRoot, ".members"), '{"nodename":"pve1","version":1}');
    writeFileSync(join(fixture.paths.pveRoot, ".vmlist"), '{"version":1,"ids":{}}');
    writeFileSync(join(fixture.paths.pveRoot, "storage.cfg"), "");
    expect((await impatient.inventory()).known).toBe(false);
    await expect(impatient.observe(VMID)).rejects.toMatchObject({ code: "HOST_UNKNOWN" });
    fixture.host.clearFaults();
    expect((await impatient.inventory()).known).toBe(true);
  });

  it("a list of the cluster that is caught half-written is unknown too", async () => {
    const path = join(fixture.paths.pveRoot, ".vmlist");
    renameSync(path, `${path}.whole`);
    writeFileSync(path, '{"version":1,"ids":{');
    expect((await fixture.containers.inventory()).known).toBe(false);
    await expect(fixture.containers.observe(VMID)).rejects.toMatchObject({ code: "HOST_UNKNOWN" });
  });
});

describe("locks", () => {
  it("four clones of one template at a time all succeed, because they take turns", async () => {
    const wishes = [1, 2, 3, 4].map((number) =>
      wishFor({
        vmid: VMID + number,
        podId: `0193a5b0-1111-7abc-8def-00000000000${number}`,
        spec: cloneSpec(fixture.host),
      }),
    );
    const outcomes = await Promise.all(wishes.map((wish) => fixture.containers.converge(wish, bounds())));
    const clones = outcomes.flatMap(({ commandLines }) => commandLines.filter((line) => line.includes(" clone ")));
    expect(clones).toHaveLength(4);
    // The same without turns: as soon as two meet, one fails at once.
    let vmid = VMID + 5;
    await until("two clones that meet", async () => {
      const free = [1, 2, 3].map(() =>
        run(fixture.paths.pctPath, ["clone", "9000", String((vmid += 1)), "--full", "1"]),
      );
      return (await Promise.allSettled(free)).some(({ status }) => status === "rejected");
    });
  });

  it("a template that somebody else clones is waited for and its lock never broken", async () => {
    await fixture.dispose();
    fixture = await createFixture({ speed: 1 });
    const theirs = run(fixture.paths.pctPath, ["clone", "9000", "777", "--full", "1"]);
    await until("the foreign clone's lock", () => lockOf(fixture, 9000) === "disk");
    const outcome = await fixture.containers.converge(
      wishFor({ spec: cloneSpec(fixture.host, { diskGb: 2 }) }),
      bounds(),
    );
    await theirs;
    expect(outcome.commandLines.some((line) => line.includes("unlock"))).toBe(false);
    expect(configOf(fixture, 777)?.options.has("rootfs")).toBe(true);
  });

  it("a template that a killed clone left locked is unlocked", async () => {
    fixture.host.leaveLock(9000, "disk");
    const outcome = await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    expect(outcome.commandLines[0]).toContain("unlock 9000");
    expect(outcome.observation?.lock).toBe("");
  });

  it("a template that a clone of ours left locked is free when its command ends, and never one that others locked", async () => {
    // The clone is whole before it can unlock its template.
    const effect = { kind: "die-at", point: "before-exit", signal: "KILL" } as const;
    fixture.host.setFaults([{ match: { command: "clone" }, effect, times: 1 }]);
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    expect(lockOf(fixture, 9000)).toBeUndefined();
    await fixture.containers.converge(wishFor({ present: false }), bounds());

    /** A clone that a former agent process began and that was killed since. */
    const killedClone = async (commandId: string): Promise<void> => {
      const runner = createOperationRunner(fixture.operationsDir);
      const argv = [fixture.paths.pctPath, "clone", "9000", String(VMID)];
      const half = { kind: "die-at", point: "half-extracted", signal: "KILL" } as const;
      fixture.host.setFaults([{ match: { command: "clone" }, effect: half }]);
      const clone = await runner.start({ operationId: `${commandId}-1`, commandId, vmid: VMID, argv });
      await until("its end", async () => !(await clone.isAlive()));
      fixture.host.clearFaults();
      expect([lockOf(fixture, 9000), lockOf(fixture, VMID)]).toEqual(["disk", "create"]);
    };
    const { commandId } = bounds();
    await killedClone(commandId);
    const wish = wishFor({ spec: cloneSpec(fixture.host) });
    const cancel = new AbortController();
    const cancelled = fixture.containers.converge(wish, bounds({ commandId, signal: cancel.signal }));
    cancel.abort();
    await expect(cancelled).rejects.toMatchObject({ code: "CANCELLED" });
    expect([lockOf(fixture, 9000), lockOf(fixture, VMID)]).toEqual([undefined, undefined]);
    await killedClone(bounds().commandId);
    await fixture.containers.converge(wishFor({ present: false }), bounds());
    expect([lockOf(fixture, 9000), configOf(fixture, VMID)]).toEqual([undefined, undefined]);

    fixture.host.leaveLock(9000, "disk");
    await fixture.containers.converge(wishFor({ present: false }), bounds());
    expect(lockOf(fixture, 9000)).toBe("disk");
  });

  it.each(["backup", "disk", "snapshot", "migrate"])(
    "a stale lock %s of ours is broken once it has no holder",
    async (lock) => {
      await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
      fixture.host.leaveLock(VMID, lock);
      const outcome = await fixture.containers.converge(wishFor({ power: Power.POWER_RUNNING }), bounds());
      expect(outcome.commandLines[0]).toContain(`unlock ${VMID}`);
      expect(outcome.observation).toMatchObject({ lock: "", power: Power.POWER_RUNNING });
    },
  );

  it("a lock that a living task holds is not: the wish waits, then says so", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    fixture.host.leaveLock(VMID, "backup");
    const holder = spawn("/bin/sleep", ["60"]);
    await once(holder, "spawn");
    const stat = readFileSync(`/proc/${holder.pid}/stat`, "utf8");
    const start = BigInt(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? 0);
    const hex = (value: bigint | number): string => value.toString(16).toUpperCase().padStart(8, "0");
    const upid = `UPID:pve1:${hex(holder.pid ?? 0)}:${hex(start)}:6B00F032:vzdump:${VMID}:root@pam:`;
    writeFileSync(join(fixture.paths.taskLogRoot, "active"), `${upid} 0\n`);
    const link = join(fixture.paths.procRoot, String(holder.pid));
    mkdirSync(link, { recursive: true });
    writeFileSync(join(link, "stat"), stat);
    const impatient = fixture.restart({ patience: { lockMs: 1_500 } });
    await expect(impatient.converge(wishFor({ power: Power.POWER_RUNNING }), bounds())).rejects.toMatchObject({
      code: "LOCKED",
      retryable: true,
    });
    expect(lockOf(fixture, VMID)).toBe("backup");
    holder.kill("SIGKILL");
    await once(holder, "exit");
    // The list still names the task; another process may even have its pid, but not its start.
    writeFileSync(join(link, "stat"), stat.replace(String(start), String(start + 1n)));
    const outcome = await fixture.containers.converge(wishFor({ power: Power.POWER_RUNNING }), bounds());
    expect(outcome.observation?.lock).toBe("");
  });

  it("a busy file lock is waited for", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    const release = await fixture.host.holdConfigLock(VMID);
    const started = fixture.containers.converge(wishFor({ power: Power.POWER_RUNNING }), bounds());
    await until("a first attempt that gives up", async () =>
      (await fixture.host.invocations()).some(({ argv, exitCode }) => argv[1] === "start" && exitCode === 4),
    );
    await release();
    expect((await started).observation?.power).toBe(Power.POWER_RUNNING);
  });

  it("a half-rolled-back disk is not started", async () => {
    await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    fixture.host.leaveLock(VMID, "rollback");
    await expect(
      fixture.restart({ patience: { lockMs: 1_500 } }).converge(wishFor({ power: Power.POWER_RUNNING }), bounds()),
    ).rejects.toMatchObject({ code: "LOCKED" });
    expect((await fixture.containers.converge(wishFor({ present: false }), bounds())).observation).toBeUndefined();
  });
});

describe("guests and members", () => {
  it("a guest that does not listen is stopped when its time is over", async () => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    fixture.host.setFaults([{ match: { command: "shutdown" }, effect: { kind: "deaf-guest" } }]);
    const outcome = await fixture.containers.converge(
      wishFor({ power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 2 }),
      bounds(),
    );
    expect(outcome.observation?.power).toBe(Power.POWER_STOPPED);
  });

  it("a container of another member is neither free nor ours to destroy", async () => {
    const path = join(fixture.paths.pveRoot, ".vmlist");
    const list = JSON.parse(readFileSync(path, "utf8")) as { ids: Record<string, object> };
    list.ids[VMID] = { node: "pve2", type: "lxc", version: 7 };
    list.ids[VMID + 1] = { node: "pve2", type: "qemu", version: 8 };
    writeFileSync(path, JSON.stringify(list));
    await expect(fixture.containers.converge(wishFor({ present: false }), bounds())).rejects.toMatchObject({
      code: "ON_OTHER_NODE",
    });
    await expect(
      fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds()),
    ).rejects.toMatchObject({ code: "ON_OTHER_NODE" });
    const taken = wishFor({ vmid: VMID + 1, spec: cloneSpec(fixture.host) });
    await expect(fixture.containers.converge(taken, bounds())).rejects.toMatchObject({ code: "VMID_CONFLICT" });
    expect((await fixture.containers.inventory()).foreignVmids).toEqual([VMID, VMID + 1]);
    expect(await commandsRun()).not.toContain("pct clone");
  });

  it("a VMID that is taken between the look and the create is looked at again", async () => {
    const stderr = `CT ${VMID} already exists on node 'pve2'`;
    fixture.host.setFaults([{ match: { command: "clone" }, effect: { kind: "exit", code: 255, stderr }, times: 1 }]);
    const outcome = await fixture.containers.converge(wishFor({ spec: cloneSpec(fixture.host) }), bounds());
    expect(outcome.commandLines.filter((line) => line.includes(" clone "))).toHaveLength(2);
  });

  it("a storage that does not answer is not available; the rest of the inventory is known", async () => {
    fixture.host.setFaults([{ storageOffline: "local-lvm" }]);
    const { known, storages } = await fixture.containers.inventory();
    expect(known).toBe(true);
    expect(storages.find(({ storage }) => storage === "local-lvm")?.available).toBe(false);
  });
});
