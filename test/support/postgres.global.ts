import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate, type DatabaseLogins } from "../../control-plane/src/platform/migrate.ts";

declare module "vitest" {
  // Merged with vitest's own interface, which only an interface can do.
  export interface ProvidedContext {
    postgres: { superuserUrl: string; logins: DatabaseLogins; template: string };
  }
}

const template = "cloudpods_template";

/** One real PostgreSQL for all integration tests; each file clones the migrated template. */
export default async function startPostgres(project: TestProject): Promise<() => Promise<void>> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-test-pg-"));
  const server = await startEmbeddedPostgres({ directory, volatile: true });
  const logins = await createLogins(server.superuserUrl, template);
  await migrate(logins.systemUrl, logins.apiUrl);
  project.provide("postgres", { superuserUrl: server.superuserUrl, logins, template });
  return async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  };
}
