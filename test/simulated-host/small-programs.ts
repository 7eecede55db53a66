import { existsSync, lstatSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "./call.ts";
import { CommandFailure } from "./failure.ts";
import type { Host } from "./layout.ts";
import { flag } from "./option-schema.ts";
import { unmountRootfs } from "./running.ts";
import { printLine } from "./terminal.ts";

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
