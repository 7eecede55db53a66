import { rmSync } from "node:fs";
import { join } from "node:path";
import { isOn, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { readConfig, removeConfig, removeFirewall, writeConfig } from "../cluster-files.ts";
import { requireUnlocked, withConfigLock } from "../config-lock.ts";
import { emptyConfig } from "../container-config.ts";
import type { ContainerConfig } from "../container-config.ts";
import { CommandFailure } from "../failure.ts";
import { pause } from "../pace.ts";
import { parseProperties } from "../properties.ts";
import { isRunning } from "../running-record.ts";
import { endLife, unmountRootfs } from "../running.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import { findVolume, freeVolume, volumesOf } from "../volumes.ts";

interface DestroyOrder {
  vmid: number;
  force: boolean;
  purge: boolean;
  unreferenced: boolean;
}

/** `pct destroy ID` */
export async function destroy(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  requireUnprotected(vmid, readConfig(host, vmid));
  const force = isOn(call, "force");
  if (!force && isRunning(host.layout, vmid)) {
    throw new CommandFailure(`unable to destroy CT ${vmid} - container is running`);
  }
  const unreferenced = isOn(call, "destroy-unreferenced-disks");
  const order: DestroyOrder = { vmid, force, purge: isOn(call, "purge"), unreferenced };
  await runTask(call, "vzdestroy", `${vmid}`, order);
}

/**
 * The worker of `pct destroy`. The disks go before the file does, and nothing asks for quorum
 * first: without it the disks are lost and the file stays.
 */
export async function destroyTask(task: Task<DestroyOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid } = payload;
  await withConfigLock(host, vmid, async () => {
    const config = readConfig(host, vmid);
    requireUnlocked(config);
    requireUnprotected(vmid, config);
    if (isRunning(host.layout, vmid)) {
      if (!payload.force) {
        throw new CommandFailure(`unable to destroy CT ${vmid} - container is running`);
      }
      await pause(host, 1000);
      await endLife(host, vmid);
      unmountRootfs(host.layout, vmid);
    }
    await task.reach("after-reserve");
    await pause(host, 200);
    freeReferenced(task, config);
    if (payload.unreferenced) freeUnreferenced(task, vmid);
    rmSync(join(host.layout.lxcRoot, `${vmid}`), { recursive: true, force: true });
    await task.reach("before-config");
    const destroyed = emptyConfig();
    destroyed.keys["lock"] = "destroyed";
    writeConfig(host, vmid, destroyed);
    if (payload.purge) task.say(`purging CT ${vmid} from related configurations..`);
    removeFirewall(host, vmid);
    await removeConfig(host, vmid);
  });
}

/** Removes every volume that a configuration names, in whatever section. */
export function freeReferenced(task: Task, config: ContainerConfig): void {
  const sections = [config, { keys: config.pending, lxc: [] }, ...config.snapshots.values()];
  const volids = new Set<string>();
  for (const { keys } of sections) {
    for (const [key, value] of Object.entries(keys)) {
      if (!/^(?:rootfs|mp\d+|unused\d+)$/u.test(key)) continue;
      const volid = parseProperties(value, "volume").get("volume") ?? "";
      if (volid.includes(":")) volids.add(volid);
    }
  }
  for (const volid of volids) {
    const volume = findVolume(task.host, volid);
    if (volume === undefined) {
      task.say(`disk image '${volid}' does not exist`);
      continue;
    }
    for (const line of freeVolume(task.host, volume)) task.say(line);
  }
}

function freeUnreferenced(task: Task, vmid: number): void {
  for (const storage of task.host.settings.storages) {
    for (const volume of volumesOf(task.host, storage)) {
      if (volume.vmid !== vmid) continue;
      for (const line of freeVolume(task.host, volume)) task.say(line);
    }
  }
}

function requireUnprotected(vmid: number, config: ContainerConfig): void {
  if (config.keys["protection"] === "1") {
    throw new CommandFailure(`can't remove CT ${vmid} - protection mode enabled`);
  }
}
