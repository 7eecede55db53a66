import { appendFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { readConfig, writeConfig } from "./cluster-files.ts";
import type { ContainerConfig } from "./container-config.ts";
import { CommandFailure } from "./failure.ts";
import type { Host } from "./layout.ts";
import { acquireMutex } from "./mutex.ts";
import { printError, printLine } from "./terminal.ts";

/** Longest wait for a container's lock on a real host. */
const REAL_WAIT_MS = 10_000;
/** Never less than this, however fast the host: a loaded test machine needs as long for one call. */
const SHORTEST_WAIT_MS = 3000;

/**
 * Runs `work` with the file lock of a container, which Proxmox holds for the whole of most
 * operations. @throws CommandFailure `can't lock file … - got timeout` after 10 s
 */
export async function withConfigLock<T>(host: Host, vmid: number, work: () => T | Promise<T>): Promise<T> {
  const release = await lockConfig(host, vmid);
  try {
    return await work();
  } finally {
    await release();
  }
}

/** Takes the lock of `withConfigLock`; for a holder that is not a function. */
export async function lockConfig(host: Host, vmid: number): Promise<() => Promise<void>> {
  const folder = join(host.layout.lockRoot, "lxc");
  mkdirSync(folder, { recursive: true });
  appendFileSync(join(folder, `pve-config-${vmid}.lock`), "");
  const waitMs = Math.max(SHORTEST_WAIT_MS, REAL_WAIT_MS * host.settings.speed);
  let waited = false;
  const release = await acquireMutex(host.layout.root, `pve-config-${vmid}`, waitMs, () => {
    waited = true;
    printError("trying to acquire lock...\n");
  });
  if (release === undefined) {
    const file = `/run/lock/lxc/pve-config-${vmid}.lock`;
    throw new CommandFailure(`can't lock file '${file}' - got timeout`, 4);
  }
  if (waited) printLine(" OK");
  return release;
}

/** @throws CommandFailure `CT is locked (backup)` */
export function requireUnlocked(config: ContainerConfig): void {
  const lock = config.keys["lock"];
  if (lock !== undefined) throw new CommandFailure(`CT is locked (${lock})`);
}

/** Marks a container's file with a lock that outlives this process, and returns the file before. */
export async function setConfigLock(
  host: Host,
  vmid: number,
  lock: string,
  check?: (config: ContainerConfig) => void,
): Promise<ContainerConfig> {
  return withConfigLock(host, vmid, () => {
    const config = readConfig(host, vmid);
    requireUnlocked(config);
    check?.(config);
    const { keys } = config;
    writeConfig(host, vmid, { ...config, keys: { ...keys, lock } });
    return config;
  });
}

/** Takes a mark of `setConfigLock` away. @throws CommandFailure when the file has another */
export async function removeConfigLock(host: Host, vmid: number, lock?: string): Promise<void> {
  await withConfigLock(host, vmid, () => {
    const config = readConfig(host, vmid);
    const found = config.keys["lock"];
    const wanted = lock ?? "any";
    if (found === undefined) {
      throw new CommandFailure(`no lock found trying to remove ${wanted} lock`);
    }
    if (lock !== undefined && found !== lock) {
      throw new CommandFailure(`found lock '${found}' trying to remove '${lock}' lock`);
    }
    delete config.keys["lock"];
    writeConfig(host, vmid, config);
  });
}
