import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { createTenant } from "../../control-plane/src/tenancy/create-tenant.ts";
import { createUser } from "../../control-plane/src/tenancy/create-user.ts";
import { seedPlans } from "../../control-plane/src/plans/seed-plans.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { createApiClient } from "./api-client.ts";

/** Who can sign in to the demo. */
export interface Credentials {
  readonly adminEmail: string;
  readonly customerEmail: string;
  /** Of both. */
  readonly password: string;
  readonly tenantId: string;
}

/** Makes plans, an administrator and a customer with a tenant; the second start finds them. */
export async function seed(db: Database, directory: string): Promise<Credentials> {
  const path = join(directory, "credentials.json");
  const known = await readFile(path, "utf8").catch(() => undefined);
  // Written by this very function.
  if (known !== undefined) return JSON.parse(known) as Credentials;
  const password = randomBytes(9).toString("base64url");
  const credentials = await db.transaction(async (tx) => {
    await seedPlans(tx);
    await createUser(tx, { email: "admin@demo.test", password, platformRole: "ADMINISTRATOR", name: "Administrator" });
    const customer = await createUser(tx, {
      email: "customer@demo.test",
      password,
      platformRole: "USER",
      name: "Customer",
      emailVerified: true,
    });
    const tenant = await createTenant(tx, { slug: "demo", name: "Demo Ltd", ownerId: customer.id });
    await tx.execute(sql`
      INSERT INTO cloud_pod_quotas (tenant_id, max_cloud_pods, max_cpu_cores, max_ram_mb, max_disk_gb)
      VALUES (${tenant.id}, 20, 40, 65536, 1000)`);
    return { adminEmail: "admin@demo.test", customerEmail: "customer@demo.test", password, tenantId: tenant.id };
  });
  await writeFile(path, JSON.stringify(credentials), { mode: 0o600 });
  return credentials;
}

/** Signs in and gives the session's token. */
export async function signIn(baseUrl: string, email: string, password: string): Promise<string> {
  const { token } = await createApiClient(baseUrl).request<{ token: string }>("POST", "/api/auth/login", {
    email,
    password,
  });
  return token;
}
