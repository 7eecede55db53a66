import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { codeOf } from "../agent-error.ts";
import type { HostPaths } from "./host-paths.ts";

/**
 * VMIDs of the running containers: lxc holds the abstract socket `@/var/lib/lxc/<vmid>/command` open
 * for as long as one runs, which is what Proxmox itself looks at.
 */
export async function readRunningVmids(paths: HostPaths): Promise<ReadonlySet<number>> {
  return parseRunningVmids(await readFile(join(paths.procRoot, "net/unix"), "utf8"));
}

/** The same out of the text of `/proc/net/unix`. */
export function parseRunningVmids(text: string): ReadonlySet<number> {
  const running = new Set<number>();
  for (const line of text.split("\n")) {
    const vmid = / @\/var\/lib\/lxc\/([1-9]\d{2,8})\/command$/u.exec(line)?.[1];
    if (vmid !== undefined) running.add(Number(vmid));
  }
  return running;
}

/**
 * Pid (of the host) of a running container's first process: the first of its cgroup whose innermost
 * pid is 1. Undefined when the container does not run.
 */
export async function readInitPid(paths: HostPaths, vmid: number): Promise<number | undefined> {
  const payload = join(paths.cgroupRoot, "lxc", String(vmid), "ns");
  // systemd guests keep their first process in a scope of its own.
  for (const group of [join(payload, "init.scope"), payload]) {
    const first = (await readOrEmpty(join(group, "cgroup.procs"))).split("\n")[0] ?? "";
    if (!/^[1-9]\d*$/u.test(first)) continue;
    const status = await readOrEmpty(join(paths.procRoot, first, "status"));
    if (/^NSpid:.*\s1$/mu.test(status)) return Number(first);
  }
  return undefined;
}

/** Logical processors and memory (MiB) of the host. */
export async function readHostSize(
  paths: HostPaths,
): Promise<{ readonly cpuCores: number; readonly memoryMb: number }> {
  const [stat, meminfo] = await Promise.all([
    readFile(join(paths.procRoot, "stat"), "utf8"),
    readFile(join(paths.procRoot, "meminfo"), "utf8"),
  ]);
  const kib = /^MemTotal:\s+(\d+) kB$/mu.exec(meminfo)?.[1] ?? "0";
  const cpuCores = stat.split("\n").filter((line) => /^cpu\d+ /u.test(line)).length;
  return { cpuCores, memoryMb: Math.floor(Number(kib) / 1024) };
}

async function readOrEmpty(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const code = codeOf(error);
    // The container or its process ended while it was looked at.
    if (code === "ENOENT" || code === "ESRCH" || code === "ENODEV") return "";
    throw error;
  }
}
