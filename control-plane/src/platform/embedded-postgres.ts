import { spawn, type ChildProcess } from "node:child_process";
import { mkdir, readFile, realpath } from "node:fs/promises";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Logger } from "pino";
import { tryLockFile } from "./file-lock.ts";
import { preparePostgresFiles, type PostgresFiles } from "./postgres-files.ts";
import { failure } from "./postgres-failure.ts";

/** A PostgreSQL server of our own, running until `stop`. */
export interface EmbeddedPostgres {
  /** Connection string of the superuser; used once, to make the two logins. */
  readonly superuserUrl: string;
  readonly port: number;
  /** Ends the server, at the latest after 20 s. */
  stop(): Promise<void>;
}

/** Where and how the server runs. */
export interface EmbeddedPostgresOptions {
  /** Holds `data/` and the superuser's password; made when missing. */
  readonly directory: string;
  /** Turns off what makes a commit survive a power cut. Only for tests. */
  readonly volatile?: boolean;
  readonly connectionsMax?: number;
  /** Finds a port that may be free; asked again when it is not. */
  readonly choosePort?: () => Promise<number>;
  /** Is told when the server ends by itself. */
  readonly log?: Pick<Logger, "error">;
}

/** Another living process runs the server of this directory. */
export class EmbeddedPostgresInUse extends Error {
  override readonly name = "EmbeddedPostgresInUse";
}

const startDeadlineMs = 60_000;
const restartsMax = 10;
const portsMax = 5;
const longestPauseMs = 30_000;

/**
 * Starts the PostgreSQL that comes as a package, and starts it again when it ends without being asked. The directory
 * is this process's until `stop`; a server whose owner died is ended first.
 * @throws EmbeddedPostgresInUse
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  await mkdir(options.directory, { recursive: true });
  const lock = tryLockFile(join(options.directory, "owner.lock"));
  if (lock === undefined)
    throw new EmbeddedPostgresInUse(`another process runs the embedded PostgreSQL of ${options.directory}`);
  try {
    const files = await preparePostgresFiles(options.directory);
    const { first, start, superuserUrl, port } = await startOnFreePort(files, options);
    const server = keepRunning(first, start, options.log);
    return {
      superuserUrl,
      port,
      async stop() {
        await server.stop();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Between the look for a free port and the server's start another program may take it. */
async function startOnFreePort(files: PostgresFiles, options: EmbeddedPostgresOptions) {
  for (let attempt = 1; ; attempt++) {
    const port = await (options.choosePort ?? freePort)();
    const superuserUrl = `postgres://postgres:${files.superuserPassword}@127.0.0.1:${port}/postgres`;
    const start = () => startServer(files, ["-p", String(port), ...settings(options)], superuserUrl);
    try {
      return { first: await start(), start, superuserUrl, port };
    } catch (error) {
      const isTaken = error instanceof Error && error.message.includes("could not create any TCP/IP sockets");
      if (!isTaken || attempt === portsMax) throw error;
    }
  }
}

async function startServer(
  { native, data, user }: PostgresFiles,
  args: readonly string[],
  superuserUrl: string,
): Promise<ChildProcess> {
  await endStaleServer(data);
  const server = spawn(
    join(native, "bin", "postgres"),
    ["-D", data, ...args],
    // In a session of its own: Ctrl-C at a terminal is for its owner, who ends it when nobody needs it any more.
    { stdio: ["ignore", "ignore", "pipe"], detached: true, ...user },
  );
  const failed = failure(server);
  try {
    await Promise.race([untilReachable(superuserUrl), failed]);
  } catch (error) {
    await stopServer(server);
    throw error;
  }
  return server;
}

/** A server that ends without being asked is started again, unless that fails so often in a row. */
function keepRunning(
  first: ChildProcess,
  start: () => Promise<ChildProcess>,
  log: EmbeddedPostgresOptions["log"],
): { stop(): Promise<void> } {
  const stopping = new AbortController();
  let current = first;
  const supervised = (async () => {
    while (!stopping.signal.aborted) {
      const [code, signal] = await endOf(current);
      if (stopping.signal.aborted) return;
      log?.error({ code, signal }, "the embedded PostgreSQL ended by itself; it is started again");
      const next = await startAgain(start, stopping.signal, log);
      if (next === undefined) return;
      current = next;
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await stopServer(current);
      await supervised;
      // One that was being started meanwhile.
      await stopServer(current);
    },
  };
}

async function endOf(server: ChildProcess): Promise<[number | null, NodeJS.Signals | null]> {
  if (server.exitCode === null && server.signalCode === null)
    await new Promise((resolve) => server.once("exit", resolve));
  return [server.exitCode, server.signalCode];
}

async function startAgain(
  start: () => Promise<ChildProcess>,
  stopping: AbortSignal,
  log: EmbeddedPostgresOptions["log"],
): Promise<ChildProcess | undefined> {
  for (let attempt = 0; attempt < restartsMax; attempt++) {
    // Rejects when the owner stops, which the next line asks. The first pause lets processes of the dead server end.
    await sleep(Math.min(longestPauseMs, 200 * 2 ** attempt), undefined, { signal: stopping }).catch(() => {});
    if (stopping.aborted) return undefined;
    try {
      return await start();
    } catch (error) {
      log?.error({ err: error, attempt: attempt + 1, of: restartsMax }, "the embedded PostgreSQL does not start");
    }
  }
  return undefined;
}

function settings(options: EmbeddedPostgresOptions): string[] {
  const pairs: Record<string, string> = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    max_connections: String(options.connectionsMax ?? 200),
    shared_buffers: "256MB",
    max_wal_size: "2GB",
    log_min_messages: "warning",
    timezone: "UTC",
    ...(options.volatile === true ? { fsync: "off", synchronous_commit: "off", full_page_writes: "off" } : {}),
  };
  return Object.entries(pairs).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
}

async function untilReachable(url: string): Promise<void> {
  const deadline = Date.now() + startDeadlineMs;
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
    client.on("error", () => {});
    try {
      await client.connect();
      return;
    } catch (error) {
      if (Date.now() > deadline) throw new Error("PostgreSQL did not accept connections within 60 s", { cause: error });
      await new Promise((resolve) => setTimeout(resolve, 50));
    } finally {
      await client.end().catch(() => {});
    }
  }
}

/** A server whose owner was killed still runs on the data: it is asked to end before a new one starts. */
async function endStaleServer(data: string): Promise<void> {
  const pidFile = join(data, "postmaster.pid");
  const pid = Number((await readFile(pidFile, "utf8").catch(() => "")).split("\n")[0]);
  if (!Number.isInteger(pid) || pid <= 0 || !(await isServerOf(pid, data))) return;
  process.kill(pid, "SIGINT");
  for (const deadline = Date.now() + 20_000; Date.now() < deadline;) {
    if (!(await isServerOf(pid, data))) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`an older PostgreSQL (pid ${pid}) still runs on ${data}`);
}

/** Whether the process is a server that was started on this very data; its number may belong to another one by now. */
async function isServerOf(pid: number, data: string): Promise<boolean> {
  const [program, ...args] = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
  const given = args[args.indexOf("-D") + 1];
  if (program === undefined || basename(program) !== "postgres" || given === undefined) return false;
  return (await realpath(given).catch(() => undefined)) === (await realpath(data));
}

async function stopServer(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGINT"); // fast shutdown
  const timer = setTimeout(() => server.kill("SIGQUIT"), 20_000);
  await ended;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
