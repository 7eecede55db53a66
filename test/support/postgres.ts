import { randomBytes } from "node:crypto";
import pg from "pg";
import { inject } from "vitest";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";

/** A database of its own, cloned from the migrated template. */
export interface TestDatabase {
  readonly systemUrl: string;
  readonly apiUrl: string;
  /** Login that owns the tables. */
  readonly system: Database;
  /** Login of tenants' requests. */
  readonly api: Database;
  close(): Promise<void>;
}

/** Clones the template; call it in `beforeAll` and `close` in `afterAll`. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const { superuserUrl, logins, template } = inject("postgres");
  const name = `test_${randomBytes(6).toString("hex")}`;
  await asSuperuser(superuserUrl, `CREATE DATABASE ${name} TEMPLATE ${template} OWNER cloudpods_system`);
  const systemUrl = withDatabase(logins.systemUrl, name);
  const apiUrl = withDatabase(logins.apiUrl, name);
  const system = openDatabase({ url: systemUrl, applicationName: "test-system", connectionsMax: 12 });
  const api = openDatabase({ url: apiUrl, applicationName: "test-api", connectionsMax: 12 });
  return {
    systemUrl,
    apiUrl,
    system,
    api,
    close: async () => {
      await Promise.all([system.close(), api.close()]);
      await asSuperuser(superuserUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    },
  };
}

function withDatabase(url: string, database: string): string {
  const parsed = new URL(url);
  parsed.pathname = `/${database}`;
  return parsed.toString();
}

async function asSuperuser(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
