import type { ChildProcess } from "node:child_process";
import { readFile, readdir } from "node:fs/promises";

/** A process of this machine. */
export interface FoundProcess {
  readonly pid: number;
  readonly commandLine: readonly string[];
}

/**
 * Processes that have to do with a folder: its path is in their arguments or in their environment. The
 * one that asks is left out, and so are those that have ended and wait for their parent.
 */
export async function processesAbout(folder: string): Promise<FoundProcess[]> {
  const found: FoundProcess[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^[0-9]+$/.test(name) || Number(name) === process.pid) continue;
    // Gone by now, or somebody else's.
    const [arguments_, environment] = await Promise.all(
      ["cmdline", "environ"].map((file) => readFile(`/proc/${name}/${file}`, "utf8").catch(() => "")),
    );
    if (arguments_ === undefined || arguments_ === "" || environment === undefined) continue;
    const words = `${arguments_}\0${environment}`.split(/[\0=]/);
    if (words.some((word) => word === folder || word.startsWith(`${folder}/`)))
      found.push({ pid: Number(name), commandLine: arguments_.split("\0").slice(0, -1) });
  }
  return found;
}

/** Sends a signal to a process that may have ended. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // it ended by itself
  }
}

/** Waits for a process to end; its exit code, or the signal that ended it. */
export async function exitOf(child: ChildProcess): Promise<number | NodeJS.Signals> {
  if (child.exitCode !== null) return child.exitCode;
  if (child.signalCode !== null) return child.signalCode;
  return await new Promise((resolve) => child.once("exit", (code, name) => resolve(code ?? name ?? -1)));
}
