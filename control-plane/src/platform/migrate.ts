import { createHmac, randomBytes } from "node:crypto";
import { join } from "node:path";
import { runner } from "node-pg-migrate";
import pg from "pg";
import { noticesLoss } from "./lost-connections.ts";

/** Of advisory locks: one migration at a time. */
const migrationLock = 0x6d69_0001;
const migrationsDirectory = join(import.meta.dirname, "../../migrations");

/** Connection strings of the two logins. */
export interface DatabaseLogins {
  /** `cloudpods_system`: owns the tables; workers, ingest, gateway, sign-in, operators' requests. */
  readonly systemUrl: string;
  /** `cloudpods_api`: owns nothing, bypasses nothing; tenants' requests. */
  readonly apiUrl: string;
}

/**
 * Makes the two logins and the database with a superuser's connection (the embedded server's). The
 * passwords are new each time; the superuser is not used afterwards.
 */
export async function createLogins(superuserUrl: string, database: string): Promise<DatabaseLogins> {
  const systemPassword = randomBytes(24).toString("hex");
  const apiPassword = randomBytes(24).toString("hex");
  await withClient(superuserUrl, async (client) => {
    for (const [role, password] of [
      ["cloudpods_system", systemPassword],
      ["cloudpods_api", apiPassword],
    ] as const) {
      const known = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [role]);
      await client.query(
        `${known.rowCount === 0 ? "CREATE" : "ALTER"} ROLE ${role} LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD '${password}'`,
      );
    }
    const known = await client.query("SELECT FROM pg_database WHERE datname = $1", [database]);
    if (known.rowCount === 0) {
      await client.query(`CREATE DATABASE ${client.escapeIdentifier(database)} OWNER cloudpods_system`);
    }
  });
  return {
    systemUrl: loginUrl(superuserUrl, "cloudpods_system", systemPassword, database),
    apiUrl: loginUrl(superuserUrl, "cloudpods_api", apiPassword, database),
  };
}

/**
 * The tenants' login, made with the owner's connection where the owner may create roles. Its password
 * follows from the owner's, so that every replica knows it without being told.
 * @throws Error naming the statement to run by hand where the owner may not create roles.
 */
async function ensureApiLogin(client: pg.Client, systemUrl: string): Promise<string> {
  const url = new URL(systemUrl);
  const password = createHmac("sha256", url.password).update("cloudpods_api").digest("hex");
  const known = await client.query("SELECT FROM pg_roles WHERE rolname = 'cloudpods_api'");
  const verb = known.rowCount === 0 ? "CREATE" : "ALTER";
  try {
    await client.query(`${verb} ROLE cloudpods_api LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD '${password}'`);
  } catch (error) {
    throw new Error(
      "the login of CLOUDPODS_DATABASE_URL may not create roles: make one with CREATE ROLE cloudpods_api LOGIN PASSWORD '…' and set CLOUDPODS_DATABASE_API_URL",
      { cause: error },
    );
  }
  return loginUrl(systemUrl, "cloudpods_api", password, url.pathname.slice(1));
}

/**
 * Brings the schema up to date and makes sure of the tenants' login. Several replicas at once wait for
 * each other.
 */
export async function migrate(
  systemUrl: string,
  apiUrl?: string,
): Promise<DatabaseLogins & { readonly applied: readonly string[] }> {
  let result: (DatabaseLogins & { readonly applied: readonly string[] }) | undefined;
  await withClient(systemUrl, async (client) => {
    await client.query("SELECT pg_advisory_lock($1)", [migrationLock]);
    const api = apiUrl ?? (await ensureApiLogin(client, systemUrl));
    const done = await runner({
      databaseUrl: noticesLoss(systemUrl),
      dir: migrationsDirectory,
      direction: "up",
      migrationsTable: "schema_migrations",
      checkOrder: true,
      singleTransaction: true,
      log: () => {},
    });
    result = { systemUrl, apiUrl: api, applied: done.map((migration) => migration.name) };
  });
  if (result === undefined) throw new Error("the migration did not run");
  return result;
}

/** Whether the login works now. */
export async function canConnect(url: string): Promise<boolean> {
  return await withClient(url, async () => {}).then(
    () => true,
    () => false,
  );
}

function loginUrl(baseUrl: string, user: string, password: string, database: string): string {
  const url = new URL(baseUrl);
  url.username = user;
  url.password = password;
  url.pathname = `/${database}`;
  return url.toString();
}

async function withClient(url: string, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ ...noticesLoss(url), connectionTimeoutMillis: 10_000 });
  client.on("error", () => {});
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
