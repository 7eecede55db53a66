import { cpSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isOn, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { readConfig, writeConfig } from "../cluster-files.ts";
import { requireUnlocked, withConfigLock } from "../config-lock.ts";
import type { ConfigSection, ContainerConfig } from "../container-config.ts";
import { CommandFailure } from "../failure.ts";
import { localTime } from "../local-time.ts";
import { pause } from "../pace.ts";
import { isRunning } from "../running-record.ts";
import { endLife, unmountRootfs } from "../running.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import { printLine } from "../terminal.ts";
import { openVolume, rootfsOf, saveVolume } from "../volumes.ts";
import type { Volume } from "../volumes.ts";
import { volidOf } from "./disks.ts";
import { bringUp } from "./power.ts";

interface SnapshotOrder {
  vmid: number;
  name: string;
  description: string | null;
  start: boolean;
}

/** `pct snapshot ID NAME` */
export async function snapshot(call: Call): Promise<void> {
  readConfig(call.host, vmidOf(call));
  await runTask(call, "vzsnapshot", `${vmidOf(call)}`, order(call));
}

/** `pct rollback ID NAME` */
export async function rollback(call: Call): Promise<void> {
  requireSnapshot(readConfig(call.host, vmidOf(call)), order(call).name);
  await runTask(call, "vzrollback", `${vmidOf(call)}`, order(call));
}

/** `pct delsnapshot ID NAME` */
export async function delsnapshot(call: Call): Promise<void> {
  requireSnapshot(readConfig(call.host, vmidOf(call)), order(call).name);
  await runTask(call, "vzdelsnapshot", `${vmidOf(call)}`, order(call));
}

/** `pct listsnapshot ID`: a tree that ends in the present. */
export function listsnapshot(call: Call): void {
  const config = readConfig(call.host, vmidOf(call));
  const show = (prefix: string, name: string, time: string, description: string): void =>
    printLine(`${prefix} ${name.padEnd(30 - prefix.length)} ${time.padEnd(23)} ${description}`);
  const walk = (prefix: string, parent: string | undefined): void => {
    for (const [name, { keys }] of config.snapshots) {
      if (keys["parent"] !== parent) continue;
      const time = localTime(1000 * Number(keys["snaptime"] ?? 0));
      const [description = ""] = (keys["description"] ?? "").split("\n");
      show(prefix, name, time, description === "" ? "no-description" : description);
      walk(`  ${prefix}`, name);
    }
    if (config.keys["parent"] === parent) show(prefix, "current", "", "You are here!");
  };
  walk("`->", undefined);
}

/** The worker of `pct snapshot`. */
export async function snapshotTask(task: Task<SnapshotOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid, name } = payload;
  await withConfigLock(host, vmid, () => {
    const config = readConfig(host, vmid);
    requireUnlocked(config);
    if (config.keys["template"] === "1") {
      throw new CommandFailure("you can't take a snapshot if it's a template");
    }
    if (openVolume(host, volidOf(config, "rootfs")).storage.type === "dir") {
      throw new CommandFailure("snapshot feature is not available");
    }
    if (config.snapshots.has(name)) throw new CommandFailure(`snapshot name '${name}' already used`);
    writeConfig(host, vmid, { ...config, keys: { ...config.keys, lock: "snapshot" } });
  });
  await task.reach("after-reserve");
  await pause(host, 200);
  await withConfigLock(host, vmid, () => {
    const config = readConfig(host, vmid);
    delete config.keys["lock"];
    const volume = openVolume(host, volidOf(config, "rootfs"));
    keepContent(volume, name);
    if (volume.storage.type === "lvmthin") task.say(`  Logical volume "snap_vm-${vmid}-disk-0_${name}" created.`);
    const keys: Record<string, string> = { ...config.keys, snaptime: `${Math.floor(Date.now() / 1000)}` };
    const { description: _, ...plain } = keys;
    const described = payload.description === null ? plain : { ...plain, description: `${payload.description}\n` };
    config.snapshots.set(name, { keys: described, lxc: config.lxc });
    writeConfig(host, vmid, { ...config, keys: { ...config.keys, parent: name } });
  });
}

/** The worker of `pct rollback`: content and configuration of the snapshot, stopped unless asked. */
export async function rollbackTask(task: Task<SnapshotOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid, name } = payload;
  await withConfigLock(host, vmid, async () => {
    const config = readConfig(host, vmid);
    requireUnlocked(config);
    const snapshotted = requireSnapshot(config, name);
    if (isRunning(host.layout, vmid)) {
      await endLife(host, vmid);
      unmountRootfs(host.layout, vmid);
    }
    writeConfig(host, vmid, { ...config, keys: { ...config.keys, lock: "rollback" } });
    await pause(host, 200);
    const volume = openVolume(host, volidOf(config, "rootfs"));
    rmSync(rootfsOf(volume), { recursive: true, force: true });
    cpSync(join(volume.folder, "snapshots", name), rootfsOf(volume), { recursive: true, verbatimSymlinks: true });
    const { snaptime: _, parent: __, ...keys } = snapshotted.keys;
    const { description } = config.keys;
    const restored = { ...keys, ...(description === undefined ? {} : { description }), parent: name };
    const next = { ...config, keys: restored, lxc: snapshotted.lxc };
    writeConfig(host, vmid, next);
    if (payload.start) await bringUp(task, vmid, next);
  });
}

/** The worker of `pct delsnapshot`: later snapshots get the removed one's parent. */
export async function delsnapshotTask(task: Task<SnapshotOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid, name } = payload;
  await withConfigLock(host, vmid, async () => {
    const config = readConfig(host, vmid);
    requireUnlocked(config);
    const removed = requireSnapshot(config, name);
    await pause(host, 200);
    const volume = openVolume(host, volidOf(config, "rootfs"));
    volume.snapshots = volume.snapshots.filter((other) => other !== name);
    saveVolume(volume);
    rmSync(join(volume.folder, "snapshots", name), { recursive: true, force: true });
    config.snapshots.delete(name);
    for (const { keys } of [config, ...config.snapshots.values()]) {
      if (keys["parent"] !== name) continue;
      if (removed.keys["parent"] === undefined) delete keys["parent"];
      else keys["parent"] = removed.keys["parent"];
    }
    writeConfig(host, vmid, config);
  });
}

function keepContent(volume: Volume, name: string): void {
  const folder = join(volume.folder, "snapshots");
  mkdirSync(folder, { recursive: true });
  cpSync(rootfsOf(volume), join(folder, name), { recursive: true, verbatimSymlinks: true });
  volume.snapshots.push(name);
  saveVolume(volume);
}

function requireSnapshot(config: ContainerConfig, name: string): ConfigSection {
  const found = config.snapshots.get(name);
  if (found === undefined) throw new CommandFailure(`snapshot '${name}' does not exist`);
  return found;
}

function order(call: Call): SnapshotOrder {
  return {
    vmid: vmidOf(call),
    name: call.words["snapname"] ?? "",
    description: call.options["description"] ?? null,
    start: isOn(call, "start"),
  };
}
