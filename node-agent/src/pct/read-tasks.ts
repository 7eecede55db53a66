import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { HostPaths } from "./host-paths.ts";
import { parseRunningTasks } from "./parse-pct-tasks.ts";
import type { Upid } from "./parse-pct-tasks.ts";
import { processStart } from "./process-start.ts";

/** A task of this host whose worker lives. */
export interface LiveTask extends Upid {
  /** The container that a clone makes; undefined when the log does not say (yet). */
  readonly cloneTarget: number | undefined;
}

/**
 * Tasks that `tasks/active` says are running and whose worker is that very process: the list keeps
 * entries of killed workers until somebody sweeps it. A missing list is an empty one.
 */
export async function readLiveTasks(paths: HostPaths): Promise<LiveTask[]> {
  const text = await readFile(join(paths.taskLogRoot, "active"), "utf8").catch(() => "");
  const live: LiveTask[] = [];
  for (const { upid, line } of runningLines(text)) {
    if ((await processStart(paths.procRoot, upid.pid)) !== upid.processStart) continue;
    const cloneTarget = upid.type === "vzclone" ? await readCloneTarget(paths, line) : undefined;
    live.push({ ...upid, cloneTarget });
  }
  return live;
}

function runningLines(text: string): { upid: Upid; line: string }[] {
  return text.split("\n").flatMap((line) => parseRunningTasks(line).map((upid) => ({ upid, line })));
}

/** The log of a clone begins with "creating a clone of container 100 with ID 102". */
async function readCloneTarget(paths: HostPaths, line: string): Promise<number | undefined> {
  const [upid = ""] = line.split(" ");
  const digit = upid.split(":")[4]?.slice(-1) ?? "";
  const log = await readFile(join(paths.taskLogRoot, digit, upid), "utf8").catch(() => "");
  const target = /creating a clone of container \d+ with ID (\d+)/u.exec(log)?.[1];
  return target === undefined ? undefined : Number(target);
}

/**
 * Whether one of the living tasks can be the holder of a container's lock. In doubt it is: a backup
 * job over many guests names none, a clone is named after its source and only its log tells the target.
 */
export function holdsLock(tasks: readonly LiveTask[], vmid: number, lock: string): boolean {
  return tasks.some((task) => {
    if (task.id === String(vmid)) return true;
    if (task.type === "vzdump" && task.id === "") return lock === "backup" || lock === "snapshot";
    if (task.type !== "vzclone" || lock !== "create") return false;
    return task.cloneTarget === undefined || task.cloneTarget === vmid;
  });
}
