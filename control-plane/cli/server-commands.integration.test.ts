import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, expect, test } from "vitest";
import { builtPrograms } from "../../test/support/built-programs.ts";
import { compileCache } from "../../test/support/compile-cache.ts";
import { makeTenant } from "../../test/support/people.ts";
import { makePod } from "../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { insertUsageDay } from "../../test/support/usage-rows.ts";
import { sql } from "../src/platform/sql.ts";
import { verifyPassword } from "../src/security/password.ts";
import { newSecretToken } from "../src/security/secret-token.ts";
import { createUser } from "../src/tenancy/create-user.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

async function run(
  args: readonly string[],
  environment: Record<string, string>,
  input = "",
): Promise<{ code: number | null; said: string }> {
  const child = spawn(process.execPath, [builtPrograms().controlPlane, ...args], {
    env: {
      PATH: process.env["PATH"],
      NODE_COMPILE_CACHE: compileCache,
      ...environment,
    },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, said };
}

const external = () => ({
  CLOUDPODS_DATABASE_URL: db.systemUrl,
  CLOUDPODS_DATABASE_API_URL: db.apiUrl,
  CLOUDPODS_MASTER_KEY: randomBytes(32).toString("hex"),
});

test("a wrong configuration is named whole, without its values, and ends with EX_CONFIG", async () => {
  const { code, said } = await run(["serve"], {
    CLOUDPODS_HTTP_PORT: "many",
    CLOUDPODS_MASTER_KEY: "s3cret",
    CLOUDPODS_RULES: "api",
  });
  expect(code).toBe(78);
  for (const name of ["CLOUDPODS_HTTP_PORT", "CLOUDPODS_MASTER_KEY", "CLOUDPODS_RULES"]) expect(said).toContain(name);
  expect(said).not.toContain("s3cret");
});

test.each([
  ["pods ls --profile nope", 2, "COMMAND_LINE_INVALID"],
  ["pods ls --nonsense", 2, "COMMAND_LINE_INVALID"],
  ["pods ls", 5, "CREDENTIAL_MISSING"],
])(
  "with --json the last thing that is said of a failed %s is a problem as the API has them",
  async (args, ends, error) => {
    const home = { XDG_CONFIG_HOME: "/nonexistent" };
    const { code, said } = await run([...args.split(" "), "--json"], home);
    expect(code, said).toBe(ends);
    expect(JSON.parse(said.trimEnd().split("\n").at(-1) ?? "")).toMatchObject({ error, detail: expect.any(String) });
  },
);

test("migrate says that there is nothing to do when there is nothing to do", async () => {
  expect(await run(["migrate"], external())).toEqual({ code: 0, said: "The schema is up to date.\n" });
});

test("an external database needs a master key, because replicas share what is sealed", async () => {
  const { code, said } = await run(["migrate"], { CLOUDPODS_DATABASE_URL: db.systemUrl });
  expect(code).toBe(78);
  expect(said).toContain("CLOUDPODS_MASTER_KEY");
});

test("the first administrator comes from the command line, his password from the standard input", async () => {
  const args = ["admin", "create-user", "--email", "root@example.test", "--platform-role", "ADMINISTRATOR"];
  const made = await run(args, external(), "correct horse battery\n");
  expect(made.said).toContain("root@example.test");
  expect(made.code).toBe(0);
  const rows = await db.system.query(sql`SELECT platform_role AS role FROM users WHERE email = 'root@example.test'`);
  expect(rows).toEqual([{ role: "ADMINISTRATOR" }]);
  const again = await run(args, external(), "correct horse battery\n");
  expect(again.code).toBe(4);
  expect(again.said).toContain("There is a user with this e-mail address");
  expect(again.said).not.toContain("correct horse");
  expect((await run([...args.slice(0, -1), "KING"], external())).code).toBe(2);
});

test("a lost password is set from the command line, and ends the user's sessions", async () => {
  const email = "lost@example.test";
  const user = await db.system.transaction((tx) => createUser(tx, { email, password: "correct horse battery" }));
  const { sha256 } = newSecretToken();
  await db.system.execute(sql`
    INSERT INTO sessions (id, user_id, token_sha256, idle_expires_at, expires_at)
    VALUES (${newId()}, ${user.id}, ${sha256}, now() + interval '1 hour', now() + interval '1 hour')`);
  const set = (address: string, password: string) =>
    run(["admin", "set-password", "--email", address], external(), `${password}\n`);
  expect((await set(email, "short")).said).toContain("PASSWORD_INVALID");
  expect((await set("nobody@example.test", "staple correct horse")).said).toContain("USER_NOT_FOUND");
  const done = await set("LOST@example.test", "staple correct horse");
  expect(done.code, done.said).toBe(0);
  expect(done.said).toContain("Sessions ended: 1.");
  const [row] = await db.system.query<{ hash: string }>(
    sql`SELECT password_hash AS hash FROM users WHERE id = ${user.id}`,
  );
  expect(await verifyPassword("staple correct horse", row?.hash)).toBe(true);
});

test("usage is not asked of a database that would be made for the question", async () => {
  const directory = "/nonexistent/cloudpods";
  for (const args of [
    ["metering", "verify"],
    ["usage", "export", "--tenant", "shop-co"],
  ]) {
    const { code, said } = await run(args, { CLOUDPODS_DATA_DIR: directory });
    expect(code, said).toBe(78);
    expect(said).toContain(`CLOUDPODS_DATA_DIR: ${directory} has no database`);
  }
});

test("a tenant's month comes as CSV, by slug or id; a wrong name or month is said", async () => {
  const tenantId = await makeTenant(db, "shop-co");
  const pod = await makePod(db, tenantId, { hostname: "shop" });
  await insertUsageDay(db.system, { tenantId, podId: pod.id, date: "2026-01-31", costPlan: "0.1234567890" });
  const usageExport = (tenant: string, month: string) =>
    run(["usage", "export", "--tenant", tenant, "--month", month], external());
  const exported = await usageExport("shop-co", "2026-01");
  expect(exported.code, exported.said).toBe(0);
  const lines = exported.said.split("\r\n");
  expect(lines).toHaveLength(3);
  expect(lines[0]).toMatch(/^BilledCost,BillingAccountId,/);
  expect(lines[1]).toMatch(new RegExp(`^0.1234567890,${tenantId},shop-co,USD,`));
  expect(await usageExport(tenantId, "2026-01")).toEqual(exported);
  expect(await usageExport("nobody", "2026-01")).toEqual({
    code: 3,
    said: "cloudpods: There is no tenant nobody. (TENANT_UNKNOWN)\n",
  });
  expect((await usageExport("shop-co", "2026-13")).said).toContain("A month is written as 2026-01.");
});

test("usage that does not add up is named, and the command says so with its exit code", async () => {
  const tenantId = await makeTenant(db, "adds-up");
  const pod = await makePod(db, tenantId, { hostname: "odd" });
  await insertUsageDay(db.system, { tenantId, podId: pod.id, date: "2025-11-30", costPlan: "1.0000000000" });
  const wrong = await run(["metering", "verify", "--month", "2025-11"], external());
  expect(wrong.code, wrong.said).toBe(1);
  expect(wrong.said).toContain(pod.id);
  const right = await run(["metering", "verify", "--month", "2025-10"], external());
  expect(right).toMatchObject({ code: 0 });
  expect(right.said).toContain("0 rows do not agree");
});
