import { appendFileSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { errorCode } from "./failure.ts";
import { readIfPresent, replaceFileDeep } from "./files.ts";
import type { Host } from "./layout.ts";
import { withMutex } from "./mutex.ts";
import { processStart } from "./process-start.ts";

/** Finished tasks that `tasks/active` keeps showing, as the real one. */
const FINISHED_SHOWN = 25;

/** One line of `tasks/active`. */
interface TaskLine {
  upid: string;
  /** Hex end time and status of a finished task. */
  end?: { time: string; status: string };
}

/** The name of a task: node, pid, the process's start and the time, type, id and user. */
export function makeUpid(host: Host, pid: number, type: string, id: string): string {
  const hex = (value: bigint | number): string => value.toString(16).toUpperCase().padStart(8, "0");
  const now = Math.floor(Date.now() / 1000);
  const start = processStart(pid) ?? 0n;
  return `UPID:${host.settings.nodeName}:${hex(pid)}:${hex(start)}:${hex(now)}:${type}:${id}:root@pam:`;
}

/** Where the output of a task is kept: below the last digit of its start time. */
export function taskLogPath(host: Host, upid: string): string {
  const started = upid.split(":")[4] ?? "0";
  return join(host.layout.taskLogRoot, "tasks", started.slice(-1), upid);
}

/** Shows a task as running. */
export async function registerTask(host: Host, upid: string): Promise<void> {
  const path = taskLogPath(host, upid);
  mkdirSync(join(path, ".."), { recursive: true });
  appendFileSync(path, "");
  await changeActive(host, (lines) => [{ upid }, ...lines]);
}

/** Shows a task as finished and writes the last line of its log. */
export async function finishTask(host: Host, upid: string, status: string): Promise<void> {
  const line = status === "OK" || status.startsWith("WARNINGS") ? status : `ERROR: ${status}`;
  appendFileSync(taskLogPath(host, upid), `TASK ${line}\n`);
  await changeActive(host, (lines) =>
    lines.map((other) => (other.upid === upid ? { upid, end: endNow(status) } : other)),
  );
}

/** Marks tasks whose worker was killed: `unexpected status`. */
export async function sweepTasks(host: Host): Promise<void> {
  await changeActive(host, (lines) => lines);
}

/** The tasks that `tasks/active` shows, newest first. */
export function readTasks(host: Host): { upid: string; status: string | undefined }[] {
  return readLines(host).map(({ upid, end }) => ({ upid, status: end?.status }));
}

/**
 * Links a real process into the simulated `/proc`, so that its liveness and start time can be read
 * there by the pid in a UPID. The link dangles once the process has ended.
 */
export function showProcess(host: Host, pid: number): void {
  try {
    symlinkSync(`/proc/${pid}`, join(host.layout.procRoot, String(pid)));
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
  }
}

async function changeActive(host: Host, change: (lines: TaskLine[]) => TaskLine[]): Promise<void> {
  await withMutex(host.layout.root, "task-list", () => {
    const swept = change(readLines(host)).map((line) =>
      line.end === undefined && !isAlive(line.upid) ? { upid: line.upid, end: endNow("unexpected status") } : line,
    );
    const running = swept.filter((line) => line.end === undefined);
    const finished = swept.filter((line) => line.end !== undefined).slice(0, FINISHED_SHOWN);
    const text = [...running, ...finished]
      .map(({ upid, end }) => (end === undefined ? `${upid} 0` : `${upid} 1 ${end.time} ${end.status}`))
      .join("\n");
    replaceFileDeep(activePath(host), text === "" ? "" : `${text}\n`);
  });
}

function readLines(host: Host): TaskLine[] {
  return (readIfPresent(activePath(host)) ?? "").split("\n").flatMap((line) => {
    const [, upid, time, status] = /^(\S+) (?:0|1 ([0-9A-F]+) (.*))$/u.exec(line) ?? [];
    if (upid === undefined) return [];
    return time === undefined ? [{ upid }] : [{ upid, end: { time, status: status ?? "" } }];
  });
}

function isAlive(upid: string): boolean {
  const [, , pid, start] = upid.split(":");
  if (pid === undefined || start === undefined) return false;
  return processStart(Number.parseInt(pid, 16)) === BigInt(`0x${start}`);
}

function endNow(status: string): { time: string; status: string } {
  const time = Math.floor(Date.now() / 1000)
    .toString(16)
    .toUpperCase()
    .padStart(8, "0");
  return { time, status };
}

function activePath(host: Host): string {
  return join(host.layout.taskLogRoot, "tasks/active");
}
