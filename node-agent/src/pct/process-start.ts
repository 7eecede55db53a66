import { readFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * Start of a living process in clock ticks since boot (proc(5), field 22): together with the pid it
 * names one process for the life of the boot. Undefined when it has ended, also while nobody reaped it.
 */
export async function processStart(procRoot: string, pid: number): Promise<bigint | undefined> {
  try {
    return parseProcessStart(await readFile(join(procRoot, String(pid), "stat"), "utf8"));
  } catch {
    // Gone, or going while it was read.
    return undefined;
  }
}

/** Where the start is among the fields behind the name; the state is the first of them. */
const START_FIELD = 19;

/** The same out of the text of `/proc/<pid>/stat`; the name in parentheses may hold anything. */
export function parseProcessStart(stat: string): bigint | undefined {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ", START_FIELD + 1);
  const [state, start] = [fields[0], fields[START_FIELD]];
  if (state === "Z" || state === "X" || start === undefined || !/^\d+$/u.test(start)) return undefined;
  return BigInt(start);
}
