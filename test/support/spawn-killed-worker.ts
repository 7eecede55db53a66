import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { bundledProgram } from "./bundled-program.ts";

let program: string | undefined;

/** Runs a worker that dies at its n-th boundary; undefined when the work ended before it got there. */
export async function spawnKilledWorker(
  databaseUrl: string,
  nth: number,
  isDone: () => Promise<boolean>,
): Promise<string | undefined> {
  program ??= bundledProgram("killed-worker");
  const child = spawn(process.execPath, [program, databaseUrl, String(nth)], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  for (const deadline = Date.now() + 30_000; child.exitCode === null && child.signalCode === null; await sleep(20)) {
    if (await isDone()) {
      // It may be at the boundary after the last commit, and just about to say so and die.
      await Promise.race([ended, sleep(2_000)]);
      child.kill("SIGKILL");
    }
    if (Date.now() > deadline) throw new Error(`the worker neither died at boundary ${nth} nor finished`);
  }
  await ended;
  return said === "" ? undefined : said.trim();
}
