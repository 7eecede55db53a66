import { usage, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { readConfig, readConfigText, writeConfig } from "../cluster-files.ts";
import { requireUnlocked, withConfigLock } from "../config-lock.ts";
import { configDigest, splitList } from "../container-config.ts";
import type { ContainerConfig } from "../container-config.ts";
import { CommandFailure } from "../failure.ts";
import { dieHere } from "../front-faults.ts";
import { CONFIG_RULES } from "../option-schema.ts";
import { pause } from "../pace.ts";
import { parseProperties, printNet } from "../properties.ts";
import { isRunning } from "../running-record.ts";
import { applyHotplug } from "../running.ts";
import { allocate, requireRootdir, requireStorage, rootfsLine } from "../volumes.ts";
import { configValues } from "./config-values.ts";

/** Keys that a container cannot be without. */
const REQUIRED = new Set(["arch", "memory", "rootfs", "hostname"]);
/** Keys whose change waits for the next start while the container runs. */
const NEEDS_RESTART = new Set([
  "features",
  "nameserver",
  "searchdomain",
  "rootfs",
  "ostype",
  "arch",
  "cmode",
  "console",
  "tty",
  "timezone",
  "hookscript",
  "debug",
]);

/** `pct set ID …` */
export async function set(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  const { digest } = call.options;
  const values = configValues(call);
  const removals = splitList(call.options["delete"] ?? "");
  const reverts = splitList(call.options["revert"] ?? "");
  if (Object.keys(call.options).every((option) => option === "digest")) {
    throw new CommandFailure("no options specified");
  }
  for (const key of removals) {
    if (!(key in CONFIG_RULES)) throw parameterFailure(call, `delete: unknown option '${key}'`);
    if (REQUIRED.has(key)) throw new CommandFailure(`unable to delete required option '${key}'`);
  }
  if (values["unprivileged"] !== undefined || removals.includes("unprivileged")) {
    throw new CommandFailure("unable to modify read-only option: 'unprivileged'");
  }
  await withConfigLock(host, vmid, async () => {
    const before = readConfig(host, vmid);
    if (digest !== undefined && digest !== configDigest(readConfigText(host, vmid))) {
      throw new CommandFailure("detected modified configuration - file changed by other user? Try again.");
    }
    requireUnlocked(before);
    await pause(host, 30);
    allocateMountPoints(call, vmid, values);
    const running = isRunning(host.layout, vmid);
    const change = { values, removals, reverts };
    if (running) await hotplug(call, vmid, before, change);
    else writeConfig(host, vmid, applied(before, change));
    dieHere(call.effects, "after-config");
  });
}

interface Change {
  values: Record<string, string>;
  removals: string[];
  reverts: string[];
}

/** A stopped container takes every change at once, and what was pending too. */
function applied(before: ContainerConfig, { values, removals, reverts }: Change): ContainerConfig {
  const pending = { ...before.pending };
  for (const key of reverts) delete pending[key];
  const keys = { ...before.keys, ...pending, ...values };
  const gone = before.pendingDelete.filter((key) => !reverts.includes(key) && !(key in values));
  for (const key of [...gone, ...removals]) delete keys[key];
  return { ...before, keys, pending: {}, pendingDelete: [] };
}

async function hotplug(
  call: Call,
  vmid: number,
  before: ContainerConfig,
  { values, removals, reverts }: Change,
): Promise<void> {
  const { host } = call;
  const keys = { ...before.keys };
  const pending = { ...before.pending };
  let pendingDelete = before.pendingDelete.filter((key) => !reverts.includes(key));
  const failures: string[] = [];
  for (const key of reverts) delete pending[key];
  for (const [key, value] of Object.entries(values)) {
    const failure = hotplugFailure(call, vmid, key, value);
    pendingDelete = pendingDelete.filter((other) => other !== key);
    if (failure !== undefined) failures.push(`${key}: unable to hotplug ${key}: ${failure}`);
    if (failure !== undefined || waitsForStart(key, keys)) pending[key] = value;
    else keys[key] = /^net\d+$/u.test(key) ? hotplugNet(keys[key], value) : value;
  }
  for (const key of removals) {
    delete pending[key];
    if (waitsForStart(key, keys) && key in keys) pendingDelete.push(key);
    else delete keys[key];
  }
  if (
    Object.keys(keys).some((key) => keys[key] !== before.keys[key] || !(key in before.keys)) ||
    Object.keys(before.keys).some((key) => !(key in keys))
  ) {
    await applyHotplug(host, vmid, { keys, lxc: before.lxc });
  }
  if (failures.length > 0) {
    keepFailedNets(call, vmid, before, { values, keys, pending });
    throw parameterFailure(call, failures.join("\n"), 22);
  }
  writeConfig(host, vmid, { ...before, keys, pending, pendingDelete });
}

/** Network changes write the file on their own, so they stay, a failed one as pending. */
function keepFailedNets(
  call: Call,
  vmid: number,
  before: ContainerConfig,
  after: { values: Record<string, string>; keys: Record<string, string>; pending: Record<string, string> },
): void {
  const nets = Object.keys(after.values).filter((key) => /^net\d+$/u.test(key));
  if (nets.length === 0) return;
  const kept = { ...before.keys };
  const pending = { ...before.pending };
  for (const key of nets) {
    const waiting = after.pending[key];
    if (waiting === undefined) kept[key] = after.keys[key] ?? "";
    else pending[key] = waiting;
  }
  writeConfig(call.host, vmid, { ...before, keys: kept, pending });
}

function hotplugFailure(call: Call, vmid: number, key: string, value: string): string | undefined {
  if (key === "cpulimit" && Number(value) === 0) {
    return `closing file '/sys/fs/cgroup/lxc/${vmid}/cpu.max' failed - Invalid argument`;
  }
  const bridge = /^net\d+$/u.test(key) ? parseProperties(value, "name").get("bridge") : undefined;
  if (bridge !== undefined && !call.host.settings.bridges.includes(bridge)) {
    return `bridge '${bridge}' does not exist`;
  }
  const struck = call.effects.some((effect) => effect.kind === "hotplug-failure" && effect.option === key);
  return struck ? "command 'ip link set' failed: exit code 1" : undefined;
}

function waitsForStart(key: string, keys: Record<string, string>): boolean {
  return NEEDS_RESTART.has(key) || (/^mp\d+$/u.test(key) && key in keys);
}

/**
 * What a live change of an interface leaves in the file. When the bridge or the tag changes, only
 * values that are set are copied, so a removed tag, firewall or rate stays.
 */
function hotplugNet(before: string | undefined, after: string): string {
  if (before === undefined) return after;
  const old = parseProperties(before, "name");
  const net = parseProperties(after, "name");
  const same = (key: string): boolean => old.get(key) === net.get(key);
  if (!same("hwaddr") || !same("name") || (same("bridge") && same("tag"))) return after;
  for (const key of ["tag", "firewall", "rate"]) {
    const kept = old.get(key);
    if (!net.has(key) && kept !== undefined) net.set(key, kept);
  }
  return printNet(net);
}

function allocateMountPoints(call: Call, vmid: number, values: Record<string, string>): void {
  for (const [key, value] of Object.entries(values)) {
    if (!/^mp\d+$/u.test(key)) continue;
    const mountPoint = parseProperties(value, "volume");
    const [, id, gib] = /^([^:]+):(\d+(?:\.\d+)?)$/u.exec(mountPoint.get("volume") ?? "") ?? [];
    if (id === undefined || gib === undefined) continue;
    const storage = requireStorage(call.host, id);
    requireRootdir(storage);
    const volume = allocate(call.host, storage, vmid, Number(gib) * 1024 ** 3);
    const [volid = "", size = ""] = rootfsLine(volume).split(",");
    values[key] = [volid, `mp=${mountPoint.get("mp") ?? ""}`, size].join(",");
  }
}

function parameterFailure(call: Call, complaint: string, code = 2): CommandFailure {
  const line = usage(call.program, call.command, {
    words: [["vmid", { type: "string" }]],
    options: CONFIG_RULES,
    run: () => {},
  });
  return new CommandFailure(`400 Parameter verification failed.\n${complaint}\n${line}`, code);
}
