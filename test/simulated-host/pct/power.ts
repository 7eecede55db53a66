import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isOn, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { readConfig, requireQuorum, writeConfig } from "../cluster-files.ts";
import { requireUnlocked, withConfigLock } from "../config-lock.ts";
import type { ContainerConfig } from "../container-config.ts";
import { CommandFailure } from "../failure.ts";
import { configureGuest } from "../guest-system.ts";
import type { Host } from "../layout.ts";
import { pause } from "../pace.ts";
import { parseProperties } from "../properties.ts";
import { isRunning } from "../running-record.ts";
import { beginLife, endLife, mountRootfs, unmountRootfs } from "../running.ts";
import { runTask } from "../task.ts";
import { readTasks } from "../task-log.ts";
import type { Task } from "../task-worker.ts";
import { openVolume, rootfsOf } from "../volumes.ts";
import { withPending } from "./read.ts";

interface PowerOrder {
  vmid: number;
  skipLock: boolean;
  /** Seconds that the guest gets to shut down by itself. */
  timeoutSeconds: number;
  /** Kills a guest that did not react in time. */
  force: boolean;
}

/** `pct start ID` */
export async function start(call: Call): Promise<void> {
  const vmid = vmidOf(call);
  requireQuorum(call.host);
  if (isRunning(call.host.layout, vmid)) throw new CommandFailure(`CT ${vmid} already running`);
  readConfig(call.host, vmid);
  await runTask(call, "vzstart", `${vmid}`, order(call));
}

/** `pct stop ID` */
export async function stop(call: Call): Promise<void> {
  const vmid = vmidOf(call);
  requireRunning(call.host, vmid, "CT");
  if (isOn(call, "overrule-shutdown")) abortShutdown(call.host, vmid);
  await runTask(call, "vzstop", `${vmid}`, order(call));
}

/** `pct shutdown ID` */
export async function shutdown(call: Call): Promise<void> {
  const vmid = vmidOf(call);
  requireRunning(call.host, vmid, "CT");
  await runTask(call, "vzshutdown", `${vmid}`, order(call));
}

/** `pct reboot ID` */
export async function reboot(call: Call): Promise<void> {
  const vmid = vmidOf(call);
  requireRunning(call.host, vmid, "VM");
  await runTask(call, "vzreboot", `${vmid}`, { ...order(call), force: true });
}

/** The worker of `pct start`. */
export async function startTask(task: Task<PowerOrder>): Promise<void> {
  const { host, payload } = task;
  await withConfigLock(host, payload.vmid, async () => {
    const config = readConfig(host, payload.vmid);
    if (!payload.skipLock) requireUnlocked(config);
    if (isRunning(host.layout, payload.vmid)) {
      throw new CommandFailure(`CT ${payload.vmid} already running`);
    }
    await bringUp(task, payload.vmid, config);
  });
}

/** The worker of `pct stop`. */
export async function stopTask(task: Task<PowerOrder>): Promise<void> {
  const { host, payload } = task;
  await withConfigLock(host, payload.vmid, async () => {
    if (!payload.skipLock) requireUnlocked(readConfig(host, payload.vmid));
    await pause(host, 1000);
    await bringDown(host, payload.vmid);
  });
}

/** The worker of `pct shutdown`. */
export async function shutdownTask(task: Task<PowerOrder>): Promise<void> {
  const { host, payload } = task;
  await withConfigLock(host, payload.vmid, async () => {
    if (!payload.skipLock) requireUnlocked(readConfig(host, payload.vmid));
    await askToShutDown(task);
    await bringDown(host, payload.vmid);
  });
}

/** The worker of `pct reboot`: what waits for the next start takes effect. */
export async function rebootTask(task: Task<PowerOrder>): Promise<void> {
  const { host, payload } = task;
  await withConfigLock(host, payload.vmid, async () => {
    requireUnlocked(readConfig(host, payload.vmid));
    await askToShutDown(task);
    await bringDown(host, payload.vmid);
    await bringUp(task, payload.vmid, readConfig(host, payload.vmid));
  });
}

/** Starts a container whose lock is held: applies what is pending, checks, mounts, begins a life. */
export async function bringUp(task: Task, vmid: number, before: ContainerConfig): Promise<void> {
  const { host } = task;
  if (before.keys["template"] === "1") {
    throw new CommandFailure("you can't start a CT if it's a template");
  }
  const config = { ...before, ...withPending(before), pending: {}, pendingDelete: [] };
  if (Object.keys(before.pending).length > 0 || before.pendingDelete.length > 0) {
    writeConfig(host, vmid, config);
  }
  for (const [key, value] of Object.entries(config.keys)) {
    if (!/^net\d+$/u.test(key)) continue;
    const bridge = parseProperties(value, "name").get("bridge");
    if (bridge !== undefined && !host.settings.bridges.includes(bridge)) {
      throw new CommandFailure(`bridge '${bridge}' does not exist`);
    }
  }
  const volid = parseProperties(config.keys["rootfs"] ?? "", "volume").get("volume") ?? "";
  if (volid === "") throw new CommandFailure(`CT ${vmid} has no rootfs`);
  const volume = openVolume(host, volid);
  const hostname = config.keys["hostname"] ?? `CT${vmid}`;
  writeRuntimeFiles(host, vmid, hostname);
  await task.reach("before-life");
  await pause(host, 900);
  configureGuest(rootfsOf(volume), hostname);
  mountRootfs(host.layout, vmid, rootfsOf(volume));
  await beginLife(host, vmid, config, rootfsOf(volume));
}

/** Ends a container's life and applies what waited for it. */
export async function bringDown(host: Host, vmid: number): Promise<void> {
  await endLife(host, vmid);
  unmountRootfs(host.layout, vmid);
  const config = readConfig(host, vmid);
  if (Object.keys(config.pending).length === 0 && config.pendingDelete.length === 0) return;
  writeConfig(host, vmid, { ...config, ...withPending(config), pending: {}, pendingDelete: [] });
}

async function askToShutDown(task: Task<PowerOrder>): Promise<void> {
  const { host, payload } = task;
  if (!task.effects.some(({ kind }) => kind === "deaf-guest")) {
    await pause(host, 2500);
    return;
  }
  await pause(host, payload.timeoutSeconds * 1000);
  if (payload.force) return;
  await pause(host, 6000);
  const { vmid, timeoutSeconds } = payload;
  task.say(`command 'lxc-stop -n ${vmid} --nokill --timeout ${timeoutSeconds}' failed: exit code 1`);
  throw new CommandFailure("container did not stop");
}

function writeRuntimeFiles(host: Host, vmid: number, hostname: string): void {
  const folder = join(host.layout.lxcRoot, `${vmid}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config"), `lxc.arch = amd64\nlxc.uts.name = ${hostname}\n`);
  mkdirSync(join(host.layout.runRoot, "pve"), { recursive: true });
  writeFileSync(join(host.layout.runRoot, "pve", `ct-${vmid}.stderr`), "");
}

/** `pct stop --overrule-shutdown`: interrupts the task that waits for the guest. */
function abortShutdown(host: Host, vmid: number): void {
  for (const { upid, status } of readTasks(host)) {
    const [, , pid, , , type, id] = upid.split(":");
    if (status !== undefined || type !== "vzshutdown" || id !== `${vmid}`) continue;
    process.kill(Number.parseInt(pid ?? "", 16), "SIGTERM");
  }
}

function requireRunning(host: Host, vmid: number, kind: "CT" | "VM"): void {
  if (!isRunning(host.layout, vmid)) throw new CommandFailure(`${kind} ${vmid} not running`);
}

function order(call: Call): PowerOrder {
  return {
    vmid: vmidOf(call),
    skipLock: isOn(call, "skiplock"),
    timeoutSeconds: Number(call.options["timeout"] ?? 60),
    force: isOn(call, "forcestop"),
  };
}
