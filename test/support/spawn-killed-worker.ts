import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { bellOf, untilRung } from "./bell.ts";
import { bundledProgram } from "./bundled-program.ts";
import type { TestDatabase } from "./postgres.ts";

let program: string | undefined;

/**
 * Runs a worker that dies at its n-th boundary; undefined when the work ended before it got there. It rings the database's
 * bell, and hears it, through its pipes.
 */
export async function spawnKilledWorker(
  { system, systemUrl }: Pick<TestDatabase, "system" | "systemUrl">,
  nth: number,
  isDone: () => Promise<boolean>,
): Promise<string | undefined> {
  program ??= bundledProgram("killed-worker");
  const child = spawn(process.execPath, [program, systemUrl, String(nth)], { stdio: ["pipe", "pipe", "inherit"] });
  const bell = bellOf(system);
  let where: string | undefined;
  let isPastTheEnd = false;
  // Read to its end before the process counts as ended.
  const ended = once(child, "close").then(() => bell.ring());
  createInterface(child.stdout).on("line", (line) => {
    isPastTheEnd = line === "ended";
    if (line === "ended" || line === "committed") bell.ring();
    else where = line;
  });
  child.stdin.on("error", () => {}); // it is dead
  const ignore = bell.onRing(() => void child.stdin.write("\n"));
  try {
    const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null;
    // Before it has said that it is past the last commit it may be at the boundary after it, and just about to die.
    await untilRung(
      `a worker's death at boundary ${nth}, or the end of its work`,
      system,
      async () => hasEnded() || (isPastTheEnd && (await isDone())),
    );
    child.kill("SIGKILL");
    await ended;
  } finally {
    ignore();
    child.kill("SIGKILL");
  }
  return where;
}
