import { readSync } from "node:fs";
import { CommandFailure, messageOf } from "./failure.ts";
import type { FaultEffect } from "./faults.ts";
import type { Host } from "./layout.ts";
import { listenForInterrupts, pauseUnscaled } from "./pace.ts";
import { print, writeAll } from "./terminal.ts";

/** The descriptor on which a worker gets its order and writes its report. */
const CHANNEL = 3;

/** What a worker is told to do. */
export interface TaskOrder {
  type: string;
  payload: object;
  effects: FaultEffect[];
  frontPid: number;
}

/** How a worker ended. */
export interface TaskReport {
  failure?: string;
  code?: number;
  warnings?: number;
}

/** What a task's code gets. */
export interface Task<P extends object = object> {
  host: Host;
  payload: P;
  effects: FaultEffect[];
  /** Prints a line of progress. A worker whose `pct` was killed dies here, without any rollback. */
  say: (line: string) => void;
  /** Prints a `WARN:` line; a task with warnings succeeds. */
  warn: (line: string) => void;
  /** A named moment at which a fault may end the tool. */
  reach: (point: string) => Promise<void>;
}

/** A task's code. */
export type TaskBody = (task: Task) => Promise<void>;

/** Runs one task in this process, which is a worker. @returns its exit code */
export async function serveTask(host: Host, load: (type: string) => Promise<TaskBody>): Promise<number> {
  listenForInterrupts();
  const order = readOrder();
  const body = await load(order.type);
  let warnings = 0;
  const say = (line: string): void => {
    try {
      print(`${line}\n`);
    } catch {
      process.exit(141);
    }
  };
  const warn = (line: string): void => {
    warnings += 1;
    say(`WARN: ${line}`);
  };
  const reach = (point: string): Promise<void> => reachPoint(order, point);
  let report: TaskReport;
  try {
    await body({ host, payload: order.payload, effects: order.effects, say, warn, reach });
    report = { warnings };
  } catch (error) {
    const code = error instanceof CommandFailure ? error.exitCode : 255;
    report = { failure: messageOf(error), code };
  }
  writeAll(CHANNEL, JSON.stringify(report));
  return report.failure === undefined ? 0 : 255;
}

/** Ends the tool, or fails, at a named moment when a fault says so. */
async function reachPoint(order: TaskOrder, point: string): Promise<void> {
  for (const effect of order.effects) {
    if (effect.kind === "fail-at" && effect.point === point) {
      throw new CommandFailure(effect.message);
    }
    if (effect.kind !== "die-at" || effect.point !== point) continue;
    process.kill(order.frontPid, `SIG${effect.signal}`);
    // The killed tool cannot read any more, which a worker notices at its next print.
    if (effect.signal === "KILL") process.exit(137);
    await pauseUnscaled(10_000);
  }
}

function readOrder(): TaskOrder {
  const chunks: Buffer[] = [];
  const buffer = Buffer.alloc(65_536);
  for (;;) {
    const length = readSync(CHANNEL, buffer);
    if (length === 0) process.exit(141);
    chunks.push(Buffer.from(buffer.subarray(0, length)));
    if (buffer[length - 1] === 0x0a) break;
  }
  // The order comes from `runTask` of this same program.
  return JSON.parse(Buffer.concat(chunks).toString("utf8")) as TaskOrder;
}
