import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { appendFileSync } from "node:fs";
import type { Duplex } from "node:stream";
import type { Call } from "./call.ts";
import { CommandFailure, messageOf } from "./failure.ts";
import { finishTask, makeUpid, registerTask, showProcess, taskLogPath } from "./task-log.ts";
import type { TaskOrder, TaskReport } from "./task-worker.ts";
import { printError, writeAll } from "./terminal.ts";

/** What a caller wants of a task's end. */
interface TaskOptions {
  /** False for the commands that never look at their worker's status (resize, template, push, pull). */
  checked?: boolean;
}

/**
 * Runs a task as Proxmox does: in a forked worker whose output this process copies to its own
 * stdout and to the task log, waiting for its end. Signals go on to the worker's process group.
 * @throws CommandFailure the worker's failure, or `broken pipe` when stdout's reader went away
 */
export async function runTask(
  call: Call,
  type: string,
  id: string,
  payload: object,
  { checked = true }: TaskOptions = {},
): Promise<void> {
  const { host } = call;
  const [, main = ""] = process.argv;
  const words = ["--host-root", host.layout.root, "--worker", type];
  const worker = spawn(process.execPath, [main, ...words], {
    detached: true,
    stdio: ["inherit", "pipe", "inherit", "pipe"],
  });
  const { pid, stdout } = worker;
  if (pid === undefined || stdout === null) throw new Error("the worker did not start");
  showProcess(host, pid);
  const upid = makeUpid(host, pid, type, id);
  await registerTask(host, upid);
  let failure: Error | undefined;
  stdout.on("data", (chunk: Buffer) => {
    if (failure !== undefined) return;
    try {
      appendFileSync(taskLogPath(host, upid), chunk);
      writeAll(1, chunk);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(messageOf(error));
      signalGroup(pid, "SIGKILL");
    }
  });
  const order: TaskOrder = { type, payload, effects: call.effects, frontPid: process.pid };
  const stopForwarding = forwardSignals(pid);
  const report = await exchange(worker, order);
  stopForwarding();
  await settle(call, upid, failure === undefined ? report : { failure: "broken pipe" }, checked);
}

async function settle(call: Call, upid: string, report: TaskReport | undefined, checked: boolean): Promise<void> {
  const failure = report === undefined ? "unexpected status" : report.failure;
  const status = failure?.trim().replaceAll("\n", " ");
  if (status !== undefined) {
    await finishTask(call.host, upid, status);
    const text = failure ?? "";
    if (checked) throw new CommandFailure(text, report?.code ?? 255);
    printError(`${text}\n`);
    return;
  }
  const warnings = report?.warnings ?? 0;
  await finishTask(call.host, upid, warnings === 0 ? "OK" : `WARNINGS: ${warnings}`);
  if (warnings > 0) printError(`Task finished with ${warnings} warning(s)!\n`);
}

/** Sends the order and waits for the end. @returns undefined when the worker was killed */
function exchange(worker: ChildProcess, order: TaskOrder): Promise<TaskReport | undefined> {
  // The fourth descriptor was asked for as a pipe, which Node makes a duplex socket.
  const channel = worker.stdio[3] as Duplex;
  let answer = "";
  channel.on("data", (chunk: Buffer) => {
    answer += chunk.toString("utf8");
  });
  channel.on("error", () => channel.destroy());
  channel.write(`${JSON.stringify(order)}\n`);
  return new Promise((resolve, reject) => {
    worker.once("error", reject);
    worker.once("close", () => {
      // The worker writes exactly one report, as its last deed.
      resolve(answer === "" ? undefined : (JSON.parse(answer) as TaskReport));
    });
  });
}

/** Passes SIGTERM, SIGINT and SIGQUIT on to the worker; from the fourth on it is killed. */
function forwardSignals(pid: number): () => void {
  let received = 0;
  const forward = (): void => {
    received += 1;
    signalGroup(pid, received > 3 ? "SIGKILL" : "SIGTERM");
  };
  const signals = ["SIGTERM", "SIGINT", "SIGQUIT"] as const;
  for (const signal of signals) process.on(signal, forward);
  return () => {
    for (const signal of signals) process.off(signal, forward);
  };
}

function signalGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // The worker has ended by itself, which `exchange` reports.
  }
}
