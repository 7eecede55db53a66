import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDatabase } from "../control-plane/src/platform/database.ts";
import { startEmbeddedPostgres } from "../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate } from "../control-plane/src/platform/migrate.ts";
import { describeSchema } from "./describe-schema.ts";

/** Writes control-plane/schema.sql: the sum of the migrations, for reviews. A test holds it to be current. */
const directory = await mkdtemp(join(tmpdir(), "cloudpods-schema-"));
const server = await startEmbeddedPostgres({ directory, volatile: true });
try {
  const logins = await createLogins(server.superuserUrl, "schema");
  await migrate(logins.systemUrl, logins.apiUrl);
  const db = openDatabase({ url: logins.systemUrl, applicationName: "schema", connectionsMax: 2 });
  await writeFile(join(import.meta.dirname, "../control-plane/schema.sql"), await describeSchema(db));
  await db.close();
} finally {
  await server.stop();
  await rm(directory, { recursive: true, force: true });
}
