import type { Server } from "node:net";
import { errorCode } from "./failure.ts";
import { hashOf } from "./hash.ts";
import { uptimeMs } from "./pace.ts";

/** Pause between two tries for a held lock. */
const RETRY_MS = 10;

/**
 * Takes a lock that exists once on this machine and ends with its holder, as flock(2) does: an
 * abstract Unix socket bound to a name made of `scope` (a folder) and `name`. Node has no flock,
 * and a file with a pid in it would need the reclaiming of stale files, which cannot be done
 * without a race.
 * @returns the release, or undefined when `timeoutMs` passed first
 */
export async function acquireMutex(
  scope: string,
  name: string,
  timeoutMs: number,
  onWait?: () => void,
): Promise<(() => Promise<void>) | undefined> {
  const path = `\0cloudpods-simulated-host-${hashOf(`${scope}\n${name}`).toString(16)}`;
  const deadlineMs = uptimeMs() + timeoutMs;
  for (let attempt = 0; ; attempt += 1) {
    const server = await tryBind(path);
    if (server !== undefined) return () => new Promise((done) => server.close(() => done()));
    if (attempt === 0) onWait?.();
    if (uptimeMs() >= deadlineMs) return undefined;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

/**
 * Runs `work` under a lock that is only ever held for an instant.
 * @throws Error when it stays busy for 30 s, which means a stopped process holds it
 */
export async function withMutex<T>(scope: string, name: string, work: () => T | Promise<T>): Promise<T> {
  const release = await acquireMutex(scope, name, 30_000);
  if (release === undefined) throw new Error(`lock '${name}' below ${scope} stays busy`);
  try {
    return await work();
  } finally {
    await release();
  }
}

function tryBind(path: string): Promise<Server | undefined> {
  // Loaded with the first lock: many calls need none, and it is slow to load.
  const { createServer } = process.getBuiltinModule("node:net");
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", (error) => {
      if (errorCode(error) === "EADDRINUSE") resolve(undefined);
      else reject(error);
    });
    server.listen({ path }, () => {
      server.unref();
      resolve(server);
    });
  });
}
