import { vmidOf, isOn } from "../call.ts";
import type { Call } from "../call.ts";
import { ownVmids, readConfig } from "../cluster-files.ts";
import { encodeText } from "../container-config.ts";
import type { ConfigSection, ContainerConfig } from "../container-config.ts";
import { CommandFailure } from "../failure.ts";
import type { Host } from "../layout.ts";
import { readMeter } from "../meter.ts";
import { parseProperties, parseSize } from "../properties.ts";
import { PAGE_CACHE_BYTES, isRunning, memoryCurrent, readRunning } from "../running-record.ts";
import { print, printLine } from "../terminal.ts";

/** `pct list` */
export function list({ host }: Call): void {
  const rows = ownVmids(host).map((vmid) => {
    const { keys } = readConfig(host, vmid);
    return [`${vmid}`, statusOf(host, vmid), keys["lock"] ?? "", keys["hostname"] ?? `CT${vmid}`];
  });
  if (rows.length === 0) return;
  const header = ["VMID", "Status", "Lock", "Name"];
  for (const [vmid = "", status = "", lock = "", name = ""] of [header, ...rows]) {
    printLine(`${vmid.padEnd(10)} ${status.padEnd(10)} ${lock.padEnd(12)} ${name.padEnd(20)}`);
  }
}

/** `pct status ID [--verbose]` */
export function status(call: Call): void {
  const { host } = call;
  const vmid = vmidOf(call);
  const config = readConfig(host, vmid);
  if (!isOn(call, "verbose")) {
    printLine(`status: ${statusOf(host, vmid)}`);
    return;
  }
  const all = verboseStatus(host, vmid, config);
  for (const key of Object.keys(all).toSorted()) printLine(`${key}: ${all[key]}`);
}

/** `pct config ID [--current] [--snapshot NAME]` */
export function config(call: Call): void {
  const current = readConfig(call.host, vmidOf(call));
  const name = call.options["snapshot"];
  if (name === undefined) {
    print(formatShown(isOn(call, "current") ? current : withPending(current)));
    return;
  }
  const snapshot = current.snapshots.get(name);
  if (snapshot === undefined) throw new CommandFailure(`snapshot '${name}' does not exist`);
  print(formatShown(snapshot));
}

/** `pct pending ID` */
export function pending(call: Call): void {
  const current = readConfig(call.host, vmidOf(call));
  const keys = new Set([...Object.keys(current.keys), ...Object.keys(current.pending)]);
  for (const key of [...keys].toSorted()) {
    const now = current.keys[key];
    const next = current.pending[key];
    if (next !== undefined) {
      if (now !== undefined) printLine(`cur ${key}: ${shown(key, now)}`);
      printLine(`new ${key}: ${shown(key, next)}`);
    } else if (current.pendingDelete.includes(key)) printLine(`del ${key}: ${shown(key, now ?? "")}`);
    else printLine(`cur ${key}: ${shown(key, now ?? "")}`);
  }
}

/** A configuration with what the next start will change. */
export function withPending(config: ContainerConfig): ConfigSection {
  const keys = { ...config.keys, ...config.pending };
  for (const key of config.pendingDelete) delete keys[key];
  return { keys, lxc: config.lxc };
}

function formatShown({ keys, lxc }: ConfigSection): string {
  const lines = Object.keys(keys)
    .toSorted()
    .map((key) => `${key}: ${shown(key, keys[key] ?? "")}\n`);
  return lines.join("") + lxc.map(([key, value]) => `${key}: ${value}\n`).join("");
}

function shown(key: string, value: string): string {
  return key === "description" ? encodeText(value) : value;
}

function statusOf(host: Host, vmid: number): string {
  return isRunning(host.layout, vmid) ? "running" : "stopped";
}

function verboseStatus(host: Host, vmid: number, { keys }: ContainerConfig): Record<string, string | number | bigint> {
  const running = readRunning(host.layout, vmid);
  const nowNs = process.hrtime.bigint();
  const used = running === undefined ? undefined : readMeter(running.meter, nowNs);
  const cpus = Number(keys["cores"] ?? keys["cpulimit"] ?? host.settings.cores);
  const memory = running === undefined ? 0n : memoryCurrent(running) - PAGE_CACHE_BYTES;
  const optional = {
    ...(keys["lock"] === undefined ? {} : { lock: keys["lock"] }),
    ...(keys["tags"] === undefined ? {} : { tags: keys["tags"] }),
    ...(keys["template"] === undefined ? {} : { template: keys["template"] }),
    ...(running === undefined ? {} : { pid: running.initPid }),
  };
  return {
    ...optional,
    cpus,
    disk: running === undefined ? 0 : 2_338_816,
    diskread: used?.ioReadBytes ?? 0,
    diskwrite: used?.ioWriteBytes ?? 0,
    maxdisk: diskSize(keys["rootfs"] ?? ""),
    maxmem: BigInt(keys["memory"] ?? 512) * 1_048_576n,
    maxswap: BigInt(keys["swap"] ?? 0) * 1_048_576n,
    mem: memory > 0n ? memory : 0n,
    name: keys["hostname"] ?? `CT${vmid}`,
    netin: used?.netInBytes ?? 0,
    netout: used?.netOutBytes ?? 0,
    status: statusOf(host, vmid),
    swap: 0,
    type: "lxc",
    uptime: running === undefined ? 0 : (nowNs - running.startNs) / 1_000_000_000n,
    vmid,
  };
}

function diskSize(rootfs: string): number {
  const bytes = parseSize(parseProperties(rootfs, "volume").get("size") ?? "0");
  return Number.isNaN(bytes) ? 0 : bytes;
}
