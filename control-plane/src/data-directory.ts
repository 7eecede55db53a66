import { randomBytes } from "node:crypto";
import { mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "./config.ts";
import { startEmbeddedPostgres } from "./platform/embedded-postgres.ts";
import { createLogins, migrate, type DatabaseLogins } from "./platform/migrate.ts";
import { masterKey, type MasterKey } from "./platform/sealing.ts";

/** A database that is ready to use, ours or somebody else's. */
export interface PreparedDatabase extends DatabaseLogins {
  /** Migrations that were applied just now. */
  readonly applied: readonly string[];
  /** Ends the embedded server; nothing for a database of somebody else. */
  stop(): Promise<void>;
}

/** Starts the embedded PostgreSQL unless another one is configured, and brings its schema up to date. */
export async function prepareDatabase(config: Config): Promise<PreparedDatabase> {
  if (config.databaseUrl !== undefined) {
    return { ...(await migrate(config.databaseUrl, config.databaseApiUrl)), stop: async () => await Promise.resolve() };
  }
  await mkdir(config.dataDirectory, { recursive: true, mode: 0o711 });
  const server = await startEmbeddedPostgres({ directory: join(config.dataDirectory, "postgres") });
  try {
    const logins = await createLogins(server.superuserUrl, "cloudpods");
    return { ...(await migrate(logins.systemUrl, logins.apiUrl)), stop: () => server.stop() };
  } catch (error) {
    await server.stop();
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
