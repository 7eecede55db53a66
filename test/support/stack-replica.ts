import { type ChildProcess, spawn } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import { builtPrograms } from "./built-programs.ts";
import { compileCache } from "./compile-cache.ts";
import { exitOf } from "./processes.ts";
import { until } from "./until.ts";

const usualStartMs = 60_000;

/** A control plane of its own process: `cloudpods serve`. */
export interface Replica {
  readonly name: string;
  /** Where its API answers. */
  readonly url: string;
  readonly logPath: string;
  pid(): number;
  /** Starts it, for the first time or again, and waits until it is ready. */
  start(): Promise<void>;
  /** Ends it at once, as a crash does. */
  kill(): Promise<void>;
  /** Asks it to end; its exit code or the signal that ended it. */
  terminate(): Promise<number | NodeJS.Signals>;
}

/** What a replica is started with. */
export interface ReplicaOptions {
  readonly name: string;
  readonly url: string;
  readonly logPath: string;
  /** Variables of its configuration. */
  readonly environment: Readonly<Record<string, string>>;
  /** How long a start may take; a minute by default. */
  readonly startDeadlineMs?: number;
}

/** Describes a replica; nothing runs before `start`. */
export function createReplica(options: ReplicaOptions): Replica {
  let child: ChildProcess | undefined;
  const end = async (signal: NodeJS.Signals): Promise<number | NodeJS.Signals> => {
    child?.kill(signal);
    return child === undefined ? 0 : await exitOf(child);
  };
  return {
    name: options.name,
    url: options.url,
    logPath: options.logPath,
    pid: () => child?.pid ?? -1,
    async start() {
      const log = await open(options.logPath, "a");
      const started = spawn(process.execPath, [builtPrograms().controlPlane, "serve"], {
        env: {
          PATH: process.env["PATH"],
          NODE_COMPILE_CACHE: compileCache,
          ...options.environment,
        },
        stdio: ["ignore", log.fd, log.fd],
      });
      child = started;
      await log.close();
      await until(`replica ${options.name}`, () => isReady(started, options), options.startDeadlineMs ?? usualStartMs);
    },
    kill: async () => void (await end("SIGKILL")),
    terminate: () => end("SIGTERM"),
  };
}

async function isReady(child: ChildProcess, { name, url, logPath }: ReplicaOptions): Promise<boolean> {
  if (child.exitCode !== null || child.signalCode !== null)
    throw new Error(`replica ${name} ended: ${(await readFile(logPath, "utf8")).slice(-2_000)}`);
  return await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(5_000) }).then(
    (answer) => answer.ok,
    () => false, // it does not listen yet
  );
}
