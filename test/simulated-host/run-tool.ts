import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";

/** What a finished tool left behind; `exitCode` is null after a signal. */
export interface ToolResult {
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A tool that runs, its output so far, and its end. */
interface RunningTool {
  child: ChildProcess;
  output: () => string;
  ended: Promise<ToolResult>;
}

/** Starts an executable of a simulated host with pipes for its output. */
export function startTool(path: string, argv: string[], input?: Uint8Array): RunningTool {
  const child = spawn(path, argv, { stdio: ["pipe", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (output.stderr += text));
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const ended = new Promise<ToolResult>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exitCode, signal) => resolve({ exitCode, signal, ...output }));
  });
  return { child, output: () => output.stdout, ended };
}

/** Runs an executable of a simulated host to its end. */
export function runTool(path: string, ...argv: string[]): Promise<ToolResult> {
  return startTool(path, argv).ended;
}

/** Waits until a condition holds. @throws Error naming `what` after a minute */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`timed out waiting until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
