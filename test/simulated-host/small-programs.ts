import { existsSync, lstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import type { Command } from "./call.ts";
import { CommandFailure } from "./failure.ts";
import type { Host } from "./layout.ts";
import { flag } from "./option-schema.ts";
import { isRunning } from "./running-record.ts";
import { endLife, unmountRootfs } from "./running.ts";
import { printError, printLine } from "./terminal.ts";

/** `pveversion` */
export const PVEVERSION_COMMANDS: Record<string, Command> = {
  "": {
    words: [],
    options: { verbose: flag },
    run: () => printLine("pve-manager/9.2.11/8f3b2c1d5a6e7f90 (running kernel: 6.17.2-1-pve)"),
  },
};

/**
 * `umount -R FOLDER`, for the mount that a killed create leaves below `/var/lib/lxc`.
 * @returns the exit code
 */
export function umount(host: Host, words: string[]): number {
  const folder = words.find((word) => !word.startsWith("-")) ?? "";
  const vmid = /\/(\d+)\/rootfs\/?$/u.exec(folder)?.[1];
  if (vmid === undefined || folder.replace(/\/$/u, "") !== join(host.layout.lxcRoot, vmid, "rootfs")) {
    throw new CommandFailure(`umount: ${folder}: no mount point specified.`, 32);
  }
  if (!existsSync(folder)) throw new CommandFailure(`umount: ${folder}: no mount point specified.`, 32);
  if (!lstatSync(folder).isSymbolicLink()) {
    throw new CommandFailure(`umount: ${folder}: not mounted.`, 32);
  }
  unmountRootfs(host.layout, Number(vmid));
  return 0;
}

/** `zstd --test FILE`: reads an archive to its end. @returns the exit code */
export function zstd(words: string[]): number {
  const file = words.find((word) => !word.startsWith("-")) ?? "";
  if (!existsSync(file)) {
    printError(`zstd: can't stat ${file} : No such file or directory -- ignored \n`);
    return 1;
  }
  try {
    zstdDecompressSync(readFileSync(file));
    return 0;
  } catch {
    printError(`${file} : Decoding error (36) : Data corruption detected \n`);
    return 1;
  }
}

/** `lxc-stop --name ID --kill`: ends a container whatever its configuration says. @returns the exit code */
export async function lxcStop(host: Host, words: string[]): Promise<number> {
  const vmid = Number(/^--name=(\d+)$/u.exec(words.find((word) => word.startsWith("--name=")) ?? "")?.[1] ?? 0);
  if (!isRunning(host.layout, vmid)) {
    printError(`lxc-stop: ${vmid}: tools/lxc_stop.c: main: 193 ${vmid} is not running\n`);
    return 2;
  }
  await endLife(host, vmid);
  unmountRootfs(host.layout, vmid);
  return 0;
}
