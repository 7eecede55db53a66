import type { ChildProcess } from "node:child_process";

/** Rejects when the PostgreSQL process cannot be started or ends; with the end of what it said. */
export function failure(child: ChildProcess): Promise<never> {
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-2_000);
  });
  const ended = new Promise<never>((_, reject) => {
    child.on("error", (error) => reject(new Error(`PostgreSQL cannot be started: ${error.message}`, { cause: error })));
    child.on("exit", (code, signal) => reject(new Error(`PostgreSQL ended (${signal ?? code}): ${said.trim()}`)));
  });
  ended.catch(() => {}); // an end after the start is noticed by its users' connections
  return ended;
}
