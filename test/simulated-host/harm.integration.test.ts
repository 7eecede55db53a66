import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { SimulatedHost } from "./host.ts";
import { runTool, startTool, until } from "./run-tool.ts";
import { aHost } from "./test-host.ts";

/** Slow enough to strike a running operation, quick enough to wait for. */
const HALF_SPEED = 0.5;

function confOf(host: SimulatedHost, vmid: number): string {
  return readFileSync(join(host.paths.pveRoot, `lxc/${vmid}.conf`), "utf8");
}

function images(host: SimulatedHost): string[] {
  return readdirSync(join(host.paths.storageRoot, "local-lvm"));
}

async function taskStatus(host: SimulatedHost, type: string): Promise<string | undefined> {
  const active = readFileSync(join(host.paths.taskLogRoot, "tasks/active"), "utf8");
  return new RegExp(`:${type}:.* (0|1 [0-9A-F]+ .*)$`, "mu").exec(active)?.[1];
}

/** The process that does the work of a task, which is under way. */
function workerOf(host: SimulatedHost, type: string): number {
  const active = readFileSync(join(host.paths.taskLogRoot, "tasks/active"), "utf8");
  return Number.parseInt(new RegExp(`^UPID:[^:]+:([0-9A-F]+):.*:${type}:`, "mu").exec(active)?.[1] ?? "", 16);
}

test("while a template is cloned every other clone of it finds it locked", async () => {
  const { host, pct } = await aHost({ speed: HALF_SPEED });
  const first = startTool(host.paths.pct, ["clone", "9000", "101"]);
  await until("the first has begun", () => first.output().includes("create linked clone"));
  const worker = workerOf(host, "vzclone");
  // However long the others take to start.
  process.kill(worker, "SIGSTOP");
  const others = await Promise.all(["102", "103", "104"].map((id) => pct("clone", "9000", id)));
  process.kill(worker, "SIGCONT");
  for (const { exitCode, stderr } of others) {
    expect(exitCode).toBe(255);
    // The file lock itself is only held for an instant, which some of them have to wait for.
    expect(stderr.replace("trying to acquire lock...\n", "")).toBe("CT is locked (disk)\n");
  }
  expect(await first.ended).toMatchObject({ exitCode: 0 });
});

test("of two creates of one id one succeeds and the other finds it taken", async () => {
  const { pct } = await aHost();
  const create = ["create", "101", "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst"];
  const results = await Promise.all([pct(...create), pct(...create)]);
  const [, failed] = results.toSorted((a, b) => (a.exitCode ?? 0) - (b.exitCode ?? 0));
  expect(results.filter(({ exitCode }) => exitCode === 0)).toHaveLength(1);
  expect(failed?.stderr).toContain("CT 101 already exists on node 'pve1'\n");
});

test("a reader that goes away aborts the operation midway and leaves both locks", async () => {
  const { host, pct, fine } = await aHost({ speed: HALF_SPEED });
  const tool = startTool(host.paths.pct, ["clone", "9000", "101", "--full"]);
  await until("the clone has begun", () => tool.output().includes("creating a clone"));
  tool.child.stdout?.destroy();
  const { exitCode, stderr } = await tool.ended;
  expect({ exitCode, stderr }).toEqual({ exitCode: 255, stderr: "broken pipe\n" });
  expect(confOf(host, 101)).toBe("lock: create\n");
  expect(confOf(host, 9000)).toContain("lock: disk\n");
  expect((await pct("clone", "9000", "102")).stderr).toBe("CT is locked (disk)\n");
  await fine("unlock", "9000");
  await fine("clone", "9000", "102");
});

test("an interrupted create takes everything away but the folder of its mount", async () => {
  const { host } = await aHost({ speed: HALF_SPEED });
  const archive = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst";
  const tool = startTool(host.paths.pct, ["create", "101", archive, "--rootfs", "local-lvm:2"]);
  await until("the archive is being unpacked", () => tool.output().includes("extracting"));
  tool.child.kill("SIGTERM");
  const { exitCode, stderr } = await tool.ended;
  expect({ exitCode, stderr }).toEqual({
    exitCode: 255,
    stderr: "unable to create CT 101 - received interrupt\n",
  });
  expect(existsSync(join(host.paths.pveRoot, "lxc/101.conf"))).toBe(false);
  expect(images(host)).toEqual(["base-9000-disk-0"]);
  expect(existsSync(join(host.paths.lxcRoot, "101/rootfs"))).toBe(true);
  expect(await taskStatus(host, "vzcreate")).toContain("received interrupt");
});

test("a killed create leaves a lock, an image and a mount that only a full clean-up removes", async () => {
  const { host, pct, fine } = await aHost();
  host.setFaults([
    {
      match: { command: "create", vmid: 101 },
      effect: { kind: "die-at", point: "half-extracted", signal: "KILL" },
    },
  ]);
  const archive = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst";
  const create = ["create", "101", archive, "--rootfs", "local-lvm:2", "--description", "mine"];
  expect((await pct(...create)).signal).toBe("SIGKILL");
  host.clearFaults();
  expect(confOf(host, 101)).toBe("lock: create\n");
  expect((await pct("destroy", "101")).stderr).toBe("CT is locked (create)\n");
  expect(await taskStatus(host, "vzdestroy")).toContain("CT is locked (create)");
  expect(await taskStatus(host, "vzcreate")).toContain("unexpected status");
  await fine("unlock", "101");
  await fine("destroy", "101");
  expect(images(host)).toEqual(["base-9000-disk-0", "vm-101-disk-0"]);

  host.setFaults([
    {
      match: { command: "create", vmid: 102 },
      effect: { kind: "die-at", point: "half-extracted", signal: "KILL" },
    },
  ]);
  await pct("create", "102", ...create.slice(2));
  const rootfs = join(host.paths.lxcRoot, "102/rootfs");
  expect((await runTool(host.paths.umount, "-R", rootfs)).exitCode).toBe(0);
  expect((await runTool(host.paths.umount, "-R", rootfs)).stderr).toContain("not mounted");
  await fine("unlock", "102");
  await fine("destroy", "102", "--purge", "1", "--destroy-unreferenced-disks", "1");
  expect(images(host)).toEqual(["base-9000-disk-0", "vm-101-disk-0"]);
});

test("a pct killed from outside takes its worker down at the next print", async () => {
  const { host } = await aHost({ speed: HALF_SPEED });
  const tool = startTool(host.paths.pct, ["clone", "9000", "101", "--full"]);
  await until("the clone has begun", () => tool.output().includes("creating a clone"));
  tool.child.kill("SIGKILL");
  await tool.ended;
  const kernel = await host.startKernel();
  await until("the task has ended", async () =>
    ((await taskStatus(host, "vzclone")) ?? "0").includes("unexpected status"),
  );
  await kernel.stop();
  expect(confOf(host, 101)).toBe("lock: create\n");
});

test("destroy without quorum loses the disk and keeps the entry", async () => {
  const { host, pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  host.setFaults([{ noQuorum: true }]);
  const members = JSON.parse(readFileSync(join(host.paths.pveRoot, ".members"), "utf8"));
  expect(members.cluster.quorate).toBe(0);
  const { exitCode, stderr } = await pct("destroy", "101");
  expect(exitCode).toBe(255);
  expect(stderr).toMatch(
    /^unable to open file '\/etc\/pve\/nodes\/pve1\/lxc\/101\.conf\.tmp\.\d+' - Permission denied\n$/u,
  );
  expect(images(host)).toEqual(["base-9000-disk-0"]);
  expect(await fine("list")).toContain("101 ");
  expect((await pct("start", "101")).stderr).toBe("cluster not ready - no quorum?\n");
  host.clearFaults();
  expect(await fine("destroy", "101")).toBe("disk image 'local-lvm:vm-101-disk-0' does not exist\n");
});

test("without pmxcfs the tree is an empty plain folder and every call is refused", async () => {
  const { host, pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  host.setFaults([{ pmxcfsDown: true }]);
  expect(readdirSync(host.paths.pveRoot)).toEqual([]);
  expect(await pct("list")).toMatchObject({
    exitCode: 111,
    stdout: "",
    stderr: `${"ipcc_send_rec[1] failed: Connection refused\n".repeat(3)}Unable to load access control list: Connection refused\n`,
  });
  host.clearFaults();
  expect(await fine("list")).toContain("101 ");
});

test("a held lock makes the next tool wait and then give up", async () => {
  const { host, pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  const release = await host.holdConfigLock(101);
  const { exitCode, stderr } = await pct("set", "101", "--cores", "2");
  expect({ exitCode, stderr }).toEqual({
    exitCode: 4,
    stderr: "trying to acquire lock...\ncan't lock file '/run/lock/lxc/pve-config-101.lock' - got timeout\n",
  });
  await release();
  await fine("set", "101", "--cores", "2");
});

test("a guest that does not shut down fails the shutdown; overruling it stops the guest", async () => {
  const { host, pct, fine } = await aHost({ speed: 0.01 });
  await fine("clone", "9000", "101");
  await fine("start", "101");
  host.setFaults([{ match: { command: "shutdown" }, effect: { kind: "deaf-guest" } }]);
  expect(await pct("shutdown", "101", "--timeout", "3")).toMatchObject({
    exitCode: 255,
    stdout: "command 'lxc-stop -n 101 --nokill --timeout 3' failed: exit code 1\n",
    stderr: "container did not stop\n",
  });
  expect(await fine("status", "101")).toBe("status: running\n");
  const waiting = pct("shutdown", "101", "--timeout", "3000");
  await until("the shutdown waits", async () => (await taskStatus(host, "vzshutdown")) === "0");
  await fine("stop", "101", "--overrule-shutdown", "1");
  expect(await waiting).toMatchObject({ exitCode: 255, stderr: "received interrupt\n" });
  await fine("start", "101");
  await fine("shutdown", "101", "--timeout", "3", "--forceStop", "1");
});

test("faults strike the nth matching call, and lies change nothing", async () => {
  const { host, pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  const stderr = "command '/usr/bin/qemu-img resize' failed: exit code 1\n";
  host.setFaults([
    { match: { command: "resize", nth: 2 }, effect: { kind: "lie", stderr }, times: 1 },
    { match: { command: "status" }, effect: { kind: "exit", code: 9, stderr: "oops\n" }, times: 1 },
    { match: { command: "set" }, effect: { kind: "fail-after", code: 255, stderr: "lost" } },
  ]);
  expect((await pct("resize", "101", "rootfs", "3G")).stderr).toBe("");
  expect(await pct("resize", "101", "rootfs", "4G")).toMatchObject({ exitCode: 0, stderr });
  expect(await fine("config", "101")).toContain(",size=3G\n");
  expect(await pct("status", "101")).toMatchObject({ exitCode: 9, stderr: "oops\n" });
  expect(await pct("status", "101")).toMatchObject({ exitCode: 0 });
  expect(await pct("set", "101", "--cores", "4")).toMatchObject({ exitCode: 255, stderr: "lost\n" });
  expect(await fine("config", "101")).toContain("cores: 4\n");
  const calls = await host.invocations();
  expect(calls.map(({ argv, exitCode }) => `${argv[1]} ${exitCode}`)).toEqual(
    expect.arrayContaining(["clone 0", "status 9", "set 255"]),
  );
});

test("a full storage fails a create, which then leaves nothing", async () => {
  const { host, pct } = await aHost();
  host.setFaults([{ storageFull: "local-lvm" }]);
  const { exitCode, stderr } = await pct("clone", "9000", "101");
  expect(exitCode).toBe(255);
  expect(stderr).toContain("clone failed: ");
  expect(images(host)).toEqual(["base-9000-disk-0"]);
  expect(confOf(host, 9000)).not.toContain("lock:");
  const status = await runTool(host.paths.pvesm, "status", "--storage", "local-lvm");
  expect(status.stdout).toMatch(/^local-lvm +lvmthin +active +\d+ +\d+ +0 +100\.00%$/mu);
});

test("a reboot of the host kills tools and containers, and starts those that want it", async () => {
  const { host, pct, fine } = await aHost({ speed: HALF_SPEED });
  await fine("clone", "9000", "101");
  await fine("set", "101", "--onboot", "1");
  await fine("start", "101");
  const bootId = join(host.paths.procRoot, "sys/kernel/random/boot_id");
  const before = { boot: readFileSync(bootId, "utf8"), pid: (await host.containers())[0]?.initPid };
  const tool = startTool(host.paths.pct, ["clone", "9000", "102", "--full"]);
  await until("the clone has begun", () => tool.output().includes("creating a clone"));
  await host.reboot();
  expect((await tool.ended).signal).toBe("SIGKILL");
  expect(readFileSync(bootId, "utf8")).not.toBe(before.boot);
  const [first] = await host.containers();
  expect(first).toMatchObject({ vmid: 101, running: true });
  expect((await pct("clone", "9000", "103")).stderr).toBe("CT is locked (disk)\n");
  expect(confOf(host, 102)).toBe("lock: create\n");
});

test("a virtual machine's id is taken too", async () => {
  const { host, pct } = await aHost();
  const folder = join(host.paths.pveRoot, "nodes/pve1/qemu-server");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "101.conf"), "memory: 512\n");
  expect((await pct("clone", "9000", "101")).stderr).toBe("VM 101 already exists on node 'pve1'\n");
  expect(confOf(host, 9000)).not.toContain("lock:");
});
