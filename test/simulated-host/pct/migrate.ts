import { cpSync, existsSync } from "node:fs";
import { join } from "node:path";
import { isOn, usage, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { moveConfig, readConfig, readMembership, requireQuorum, writeConfig } from "../cluster-files.ts";
import { requireUnlocked, withConfigLock } from "../config-lock.ts";
import type { ContainerConfig } from "../container-config.ts";
import { CommandFailure, messageOf } from "../failure.ts";
import { isWithoutPower, openHost } from "../layout.ts";
import type { Host } from "../layout.ts";
import { localTime } from "../local-time.ts";
import { pause } from "../pace.ts";
import { parseProperties, printMountPoint } from "../properties.ts";
import { isRunning } from "../running-record.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import { allocate, copyContent, freeVolume, openVolume, requireStorage, saveVolume } from "../volumes.ts";
import type { Volume } from "../volumes.ts";
import { volidOf } from "./disks.ts";
import { bringDown, bringUp } from "./power.ts";

interface MigrateOrder {
  vmid: number;
  target: string;
  restart: boolean;
  timeoutSeconds: number;
  /** Storage on the target, null for the same id. */
  storage: string | null;
}

/** `pct migrate ID NODE` */
export async function migrate(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  const target = call.words["target"] ?? "";
  requireQuorum(host);
  if (target === host.settings.nodeName) {
    const line = usage(call.program, call.command, { words: [], options: {}, run: () => {} });
    throw new CommandFailure(`400 Parameter verification failed.\ntarget: target is local node.\n${line}`, 2);
  }
  if (readMembership(host)?.members[target] === undefined) {
    throw new CommandFailure(`no such cluster node '${target}'`);
  }
  readConfig(host, vmid);
  const restart = isOn(call, "restart");
  if (isRunning(host.layout, vmid) && !restart) throw stillRunning();
  const storage = call.options["target-storage"];
  const order: MigrateOrder = {
    vmid,
    target,
    restart,
    timeoutSeconds: Number(call.options["timeout"] ?? 180),
    storage: storage === undefined || storage === "1" ? null : (storage.split(":").at(-1) ?? null),
  };
  await runTask(call, "vzmigrate", `${vmid}`, order);
}

/** The worker of `pct migrate`: before the rename of the file it can be undone, after it not. */
export async function migrateTask(task: Task<MigrateOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid } = payload;
  const say = (line: string): void => task.say(`${localTime(Date.now())} ${line}`);
  const started = Date.now();
  await withConfigLock(host, vmid, async () => {
    const config = readConfig(host, vmid);
    requireUnlocked(config);
    const wasRunning = isRunning(host.layout, vmid);
    const remote = targetHost(host, payload.target);
    try {
      await leave(task, config, wasRunning, say, remote);
    } catch (error) {
      say(`ERROR: ${messageOf(error)}`);
      await undo(task, config, wasRunning);
      say(`aborting phase 1 - cleanup resources`);
      say(`start final cleanup`);
      say(`ERROR: migration aborted (duration ${duration(started)}): ${messageOf(error)}`);
      throw new CommandFailure("migration aborted");
    }
    await arrive(task, config, wasRunning, say, remote);
    say(`migration finished successfully (duration ${duration(started)})`);
  });
}

/** Proxmox names --online as well and cannot do it: no container moves alive, so that here nobody may ask for it. */
function stillRunning(): CommandFailure {
  return new CommandFailure("can't migrate running container without --online or --restart");
}

type Say = (line: string) => void;

async function leave(
  task: Task<MigrateOrder>,
  config: ContainerConfig,
  wasRunning: boolean,
  say: Say,
  remote: Host,
): Promise<void> {
  const { host, payload } = task;
  const { vmid, target } = payload;
  if (isWithoutPower(remote.layout)) {
    throw new CommandFailure("Can't connect to destination address using public key");
  }
  if (wasRunning && !payload.restart) throw stillRunning();
  const volume = openVolume(host, volidOf(config, "rootfs"));
  requireMovable(volume, config);
  requireStorageThere(remote, payload.storage ?? volume.storage.id);
  if (wasRunning) {
    say(`shutdown CT ${vmid}`);
    if (task.effects.some(({ kind }) => kind === "deaf-guest")) {
      await pause(host, payload.timeoutSeconds * 1000);
      throw new CommandFailure("container did not stop");
    }
    await pause(host, 3000);
    await bringDown(host, vmid);
  }
  const keys: Record<string, string> = { ...readConfig(host, vmid).keys, lock: "migrate" };
  writeConfig(host, vmid, { ...config, keys });
  await task.reach("after-reserve");
  const ip = readMembership(host)?.members[target]?.ip ?? "";
  say(`starting migration of CT ${vmid} to node '${target}' (${ip})`);
  await pause(host, 300);
  requirePower(remote, "pvesm import");
  const moved = sendVolume(task, remote, volume, say);
  const rootfs = parseProperties(keys["rootfs"] ?? "", "volume");
  rootfs.set("volume", moved.volid);
  await task.reach("before-move");
  writeConfig(host, vmid, { ...config, keys: { ...keys, rootfs: printMountPoint(rootfs) } });
  await moveConfig(host, vmid, target);
  if (moved.folder !== volume.folder) freeVolume(host, volume);
}

async function arrive(
  task: Task<MigrateOrder>,
  config: ContainerConfig,
  wasRunning: boolean,
  say: Say,
  remote: Host,
): Promise<void> {
  const { vmid } = task.payload;
  try {
    await task.reach("after-move");
    say("start final cleanup");
    await pause(task.host, 500);
    // It keeps the lock then, and comes up stopped on the node that it belongs to now.
    requirePower(remote, `pct unlock ${vmid}`);
    const there = readConfig(remote, vmid);
    delete there.keys["lock"];
    writeConfig(remote, vmid, { ...config, keys: there.keys });
    if (!wasRunning) return;
    say("start container on target node");
    await bringUp({ ...task, host: remote }, vmid, readConfig(remote, vmid));
  } catch (error) {
    say(`ERROR: ${messageOf(error)}`);
    throw new CommandFailure("migration problems");
  }
}

/** Before the rename a failed migration leaves the container as it was. */
async function undo(task: Task<MigrateOrder>, config: ContainerConfig, wasRunning: boolean): Promise<void> {
  const { host, payload } = task;
  writeConfig(host, payload.vmid, config);
  if (wasRunning && !isRunning(host.layout, payload.vmid)) await bringUp(task, payload.vmid, config);
}

/** Brings a volume to the other node; a shared one stays where it is. */
function sendVolume(task: Task<MigrateOrder>, remote: Host, volume: Volume, say: Say): Volume {
  const { vmid, storage } = task.payload;
  if (volume.storage.shared) {
    say(`volume '${volume.volid}' is on shared storage '${volume.storage.id}'`);
    return volume;
  }
  const name = storage ?? volume.storage.id;
  say(`found local volume '${volume.volid}' (in current VM config)`);
  const copy = allocate(remote, requireStorage(remote, name), vmid, volume.sizeBytes);
  copyContent(volume, copy);
  const kept = join(volume.folder, "snapshots");
  if (existsSync(kept)) cpSync(kept, join(copy.folder, "snapshots"), { recursive: true });
  copy.usedBytes = volume.usedBytes;
  copy.snapshots = volume.snapshots;
  saveVolume(copy);
  say(`volume '${volume.volid}' is '${copy.volid}' on the target`);
  return copy;
}

function requireMovable({ storage, parent, snapshots, volid }: Volume, config: ContainerConfig): void {
  if (storage.shared) return;
  if (parent !== null) throw new CommandFailure(`can't migrate local volume '${volid}': clone of '${parent}'`);
  if (storage.type !== "zfspool" && (snapshots.length > 0 || config.snapshots.size > 0)) {
    throw new CommandFailure(`can't migrate local volume '${volid}': non-migratable snapshot exists`);
  }
}

function requireStorageThere(remote: Host, storage: string): void {
  if (remote.settings.storages.some(({ id }) => id === storage)) return;
  throw new CommandFailure(`storage '${storage}' is not available on node '${remote.settings.nodeName}'`);
}

/** @throws CommandFailure as of a command over ssh, when the other node has lost its power meanwhile */
function requirePower({ layout, settings }: Host, command: string): void {
  if (!isWithoutPower(layout)) return;
  throw new CommandFailure(`command '/usr/bin/ssh root@${settings.nodeName} -- ${command}' failed: exit code 255`);
}

function targetHost(host: Host, name: string): Host {
  const member = readMembership(host)?.members[name];
  if (member === undefined) throw new CommandFailure(`no such cluster node '${name}'`);
  return openHost(member.root);
}

function duration(startedMs: number): string {
  const seconds = Math.round((Date.now() - startedMs) / 1000);
  const part = (value: number): string => `${Math.floor(value)}`.padStart(2, "0");
  return `${part(seconds / 3600)}:${part((seconds / 60) % 60)}:${part(seconds % 60)}`;
}
