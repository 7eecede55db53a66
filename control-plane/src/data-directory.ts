import { randomBytes } from "node:crypto";
import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { z } from "zod";
import type { Config } from "./config.ts";
import { EmbeddedPostgresInUse, startEmbeddedPostgres } from "./platform/embedded-postgres.ts";
import { canConnect, createLogins, migrate, type DatabaseLogins } from "./platform/migrate.ts";
import { masterKey, type MasterKey } from "./platform/sealing.ts";

/** A database that is ready to use, ours or somebody else's. */
export interface PreparedDatabase extends DatabaseLogins {
  /** Migrations that were applied just now. */
  readonly applied: readonly string[];
  /** Ends the embedded server; nothing for a database of somebody else. */
  stop(): Promise<void>;
}

/** How long a command waits for a server of another process: until it runs, or has ended. */
const othersServerMs = 60_000;

/**
 * Starts the embedded PostgreSQL unless another one is configured, and brings its schema up to date.
 * @throws EmbeddedPostgresInUse when another process runs it
 */
export async function prepareDatabase(config: Config, log?: Logger): Promise<PreparedDatabase> {
  if (config.databaseUrl !== undefined) {
    return usedOnly(await migrate(config.databaseUrl, config.databaseApiUrl));
  }
  await mkdir(config.dataDirectory, { recursive: true, mode: 0o711 });
  const server = await startEmbeddedPostgres({
    directory: join(config.dataDirectory, "postgres"),
    ...(log === undefined ? {} : { log }),
  });
  try {
    const logins = await createLogins(server.superuserUrl, "cloudpods");
    return { ...(await migrate(logins.systemUrl, logins.apiUrl)), stop: () => server.stop() };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/**
 * As `prepareDatabase`, and lets commands of the same data directory use the embedded server while it runs. For
 * whoever runs it for long.
 * @throws EmbeddedPostgresInUse when another process runs it
 */
export async function prepareSharedDatabase(config: Config, log: Logger): Promise<PreparedDatabase> {
  const database = await prepareDatabase(config, log);
  if (config.databaseUrl !== undefined) return database;
  const path = loginsFile(config);
  try {
    await writeLogins(path, database);
  } catch (error) {
    await database.stop();
    throw error;
  }
  return {
    ...database,
    async stop() {
      await rm(path, { force: true });
      await database.stop();
    },
  };
}

/**
 * The database for a command: that of the process which runs the embedded server now, otherwise as `prepareDatabase`.
 * A command beside this one shares its server with nobody, so its end is waited for.
 */
export async function prepareDatabaseBeside(config: Config): Promise<PreparedDatabase> {
  for (const deadline = Date.now() + othersServerMs; ;) {
    try {
      return await prepareDatabase(config);
    } catch (error) {
      if (!(error instanceof EmbeddedPostgresInUse)) throw error;
      const logins = await readLogins(loginsFile(config));
      // The file of an owner that was killed is there until the next one is ready.
      if (logins !== undefined && (await canConnect(logins.systemUrl)))
        return usedOnly(await migrate(logins.systemUrl, logins.apiUrl));
      if (Date.now() > deadline) throw error;
      await sleep(200);
    }
  }
}

function usedOnly<T>(database: T): T & { stop(): Promise<void> } {
  return { ...database, stop: async () => await Promise.resolve() };
}

const loginsSchema = z.object({ systemUrl: z.string(), apiUrl: z.string() });

function loginsFile(config: Config): string {
  return join(config.dataDirectory, "database-logins.json");
}

async function writeLogins(path: string, { systemUrl, apiUrl }: DatabaseLogins): Promise<void> {
  const half = `${path}.new`;
  await rm(half, { force: true });
  await writeFile(half, JSON.stringify({ systemUrl, apiUrl }), { mode: 0o600 });
  await rename(half, path);
}

async function readLogins(path: string): Promise<DatabaseLogins | undefined> {
  try {
    return loginsSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** The configured master key, or one that is made once and kept in the data directory (mode 0600). */
export async function readMasterKey(config: Config): Promise<MasterKey> {
  if (config.masterKey !== undefined) return masterKey(config.masterKey);
  await mkdir(config.dataDirectory, { recursive: true });
  const path = join(config.dataDirectory, "master-key");
  try {
    const file = await open(path, "wx", 0o600);
    await file.writeFile(randomBytes(32).toString("hex"));
    await file.sync();
    await file.close();
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  }
  return masterKey(Buffer.from((await readFile(path, "utf8")).trim(), "hex"));
}
