/**
 * Texts that the Linux kernel writes about a container. Every parser answers undefined to a text that
 * does not hold what it should: then the container counts as unreadable, never as idle. Counters are
 * 64 bits wide and stay bigint.
 */

/** Bytes that a device read and wrote for a cgroup. */
export interface DeviceIo {
  readonly readBytes: bigint;
  readonly writeBytes: bigint;
}

/** Bytes of an interface as the host counts them. */
export interface InterfaceBytes {
  readonly receivedBytes: bigint;
  readonly sentBytes: bigint;
}

/** A file that holds one number, such as memory.current or ifindex. */
export function parseCounter(text: string): bigint | undefined {
  return /^\d{1,20}\s*$/u.test(text) ? BigInt(text) : undefined;
}

/** The number of a key in a "flat keyed" file: cpu.stat, memory.stat (cgroup-v2, "Conventions"). */
export function parseFlatKey(text: string, key: string): bigint | undefined {
  return parseCounter(restOfLine(text, `${key} `) ?? "");
}

/** What stands behind the beginning of a line; undefined when no line begins so. */
function restOfLine(text: string, head: string): string | undefined {
  const lineStart = text.startsWith(head) ? 0 : text.indexOf(`\n${head}`) + 1;
  if (lineStart === 0 && !text.startsWith(head)) return undefined;
  const start = lineStart + head.length;
  const end = text.indexOf("\n", start);
  return text.slice(start, end === -1 ? undefined : end);
}

/**
 * What one device did for a cgroup, out of io.stat. Only the device below the root file system is
 * asked for: on stacked devices (LVM, loop) each layer counts the same bytes again. A device without
 * a line did nothing.
 *
 * @param device "major:minor"
 */
export function parseDeviceIo(text: string, device: string): DeviceIo | undefined {
  const line = restOfLine(text, `${device} `);
  if (line === undefined) return { readBytes: 0n, writeBytes: 0n };
  const read = /\brbytes=(\d+)/u.exec(line)?.[1];
  const written = /\bwbytes=(\d+)/u.exec(line)?.[1];
  if (read === undefined || written === undefined) return undefined;
  return { readBytes: BigInt(read), writeBytes: BigInt(written) };
}

/**
 * The host's ends of the containers' interfaces, by name, out of /proc/net/dev. Proxmox names them
 * `veth<vmid>i<index>`; all other interfaces are passed over.
 */
export function parseContainerInterfaces(text: string): Map<string, InterfaceBytes> {
  const found = new Map<string, InterfaceBytes>();
  // After the name: 8 numbers of the receiver, then those of the transmitter, bytes first.
  const line = /^\s*(veth\d+i\d+):\s*(\d+)(?:\s+\d+){7}\s+(\d+)(?:\s|$)/gmu;
  for (const [, name, received, sent] of text.matchAll(line)) {
    if (name === undefined || received === undefined || sent === undefined) continue;
    found.set(name, { receivedBytes: BigInt(received), sentBytes: BigInt(sent) });
  }
  return found;
}

/** VMID of an interface name of `parseContainerInterfaces`. */
export function vmidOfInterface(name: string): number {
  return Number(name.slice("veth".length, name.lastIndexOf("i")));
}

/** Milliseconds since boot, out of /proc/uptime. */
export function parseUptimeMs(text: string): number | undefined {
  const seconds = /^(\d+\.\d\d) /u.exec(text)?.[1];
  return seconds === undefined ? undefined : Math.round(Number(seconds) * 1000);
}

/** Logical processors, out of /proc/stat. */
export function parseCpuCount(stat: string): number {
  return stat.match(/^cpu\d+ /gmu)?.length ?? 1;
}

/** The first pid of a cgroup.procs file; undefined when the cgroup is empty. */
export function parseFirstPid(text: string): number | undefined {
  const first = /^[1-9]\d*(?=\n|$)/u.exec(text)?.[0];
  return first === undefined ? undefined : Number(first);
}

/** Whether a /proc/<pid>/status is of a process that is the first one of its pid namespace. */
export function isInit(status: string): boolean {
  return /^NSpid:.*\s1$/mu.test(status);
}
