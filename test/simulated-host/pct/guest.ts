import { chmodSync, copyFileSync, existsSync } from "node:fs";
import { vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { readConfig } from "../cluster-files.ts";
import { CommandFailure, errorCode } from "../failure.ts";
import { readRunning } from "../running-record.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import { print, printError } from "../terminal.ts";
import { inGuest, runInGuest } from "./guest-commands.ts";

interface CopyOrder {
  vmid: number;
  /** Path on the side that is copied from. */
  from: string;
  to: string;
  perms: string | null;
}

/** `pct exec ID -- COMMAND…`: the exit code is the command's own. */
export function exec(call: Call): number {
  const vmid = vmidOf(call);
  readConfig(call.host, vmid);
  const running = readRunning(call.host.layout, vmid);
  if (running === undefined) throw new CommandFailure(`container '${vmid}' not running!`);
  if (call.extra.length === 0) throw new CommandFailure("400 not enough arguments");
  const { exitCode, stdout, stderr } = runInGuest(running, call.extra);
  print(stdout);
  printError(stderr);
  return exitCode;
}

/** `pct push ID FILE DESTINATION` */
export async function push(call: Call): Promise<void> {
  const { file = "", destination = "" } = call.words;
  await copy(call, "push", { from: file, to: destination });
}

/** `pct pull ID PATH DESTINATION` */
export async function pull(call: Call): Promise<void> {
  const { path = "", destination = "" } = call.words;
  await copy(call, "pull", { from: path, to: destination });
}

async function copy(call: Call, direction: "push" | "pull", { from, to }: { from: string; to: string }): Promise<void> {
  const vmid = vmidOf(call);
  readConfig(call.host, vmid);
  if (readRunning(call.host.layout, vmid) === undefined) {
    const what = direction === "push" ? "push files to" : "pull files from";
    throw new CommandFailure(`can only ${what} a running CT`);
  }
  const order: CopyOrder = { vmid, from, to, perms: call.options["perms"] ?? null };
  await runTask(call, `vz${direction}`, `${vmid}`, order, { checked: false });
}

/** The worker of `pct push`. */
export async function pushTask(task: Task<CopyOrder>): Promise<void> {
  const { from, to } = task.payload;
  const rootfs = rootfsOf(task);
  if (!existsSync(from)) {
    throw new CommandFailure(`failed to open ${from} for reading: No such file or directory`);
  }
  copyInto(task, from, inGuest(rootfs, to), to);
}

/** The worker of `pct pull`. */
export async function pullTask(task: Task<CopyOrder>): Promise<void> {
  const { from, to } = task.payload;
  const rootfs = rootfsOf(task);
  if (!existsSync(inGuest(rootfs, from))) {
    throw new CommandFailure(`failed to open ${from}: No such file or directory`);
  }
  copyInto(task, inGuest(rootfs, from), to, to);
}

function copyInto(task: Task<CopyOrder>, from: string, to: string, shown: string): void {
  try {
    copyFileSync(from, to);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    throw new CommandFailure(`failed to create file ${shown}: No such file or directory`);
  }
  chmodSync(to, Number.parseInt(task.payload.perms ?? "0644", 8));
}

function rootfsOf(task: Task<CopyOrder>): string {
  const running = readRunning(task.host.layout, task.payload.vmid);
  if (running === undefined) throw new CommandFailure("can only push files to a running CT");
  return running.rootfs;
}
