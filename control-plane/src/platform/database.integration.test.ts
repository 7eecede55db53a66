import { readFile } from "node:fs/promises";
import pg from "pg";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { openDatabase } from "./database.ts";
import { noticesLoss } from "./lost-connections.ts";
import { sql } from "./sql.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

test("a transaction of a tenant sees its own rows and none without a tenant", async () => {
  const [mine, other] = ["019a0000-0000-7000-8000-000000000001", "019a0000-0000-7000-8000-000000000002"];
  await db.system.execute(
    sql`INSERT INTO tenants (id, slug, name) VALUES (${mine}, 'mine', 'Mine'), (${other}, 'other', 'Other')`,
  );
  const seen = await db.api.transaction((tx) => tx.query<{ slug: string }>(sql`SELECT slug FROM tenants`), {
    tenantId: mine,
  });
  expect(seen).toEqual([{ slug: "mine" }]);
  expect(await db.api.query(sql`SELECT FROM tenants`)).toEqual([]);
  // negative control: the owner, whom the policy does not bind, sees both
  expect(await db.system.query(sql`SELECT FROM tenants`)).toHaveLength(2);
});

test("a transaction that throws leaves nothing", async () => {
  const attempt = db.system.transaction(async (tx) => {
    await tx.execute(sql`INSERT INTO clusters (id, name) VALUES (gen_random_uuid(), 'half')`);
    throw new Error("stop");
  });
  await expect(attempt).rejects.toThrow("stop");
  expect(await db.system.query(sql`SELECT FROM clusters`)).toEqual([]);
});

test("both ends of a connection ask whether the other is still there", async () => {
  const [server] = await db.system.query(sql`
    SELECT current_setting('tcp_keepalives_idle') AS idle, current_setting('tcp_user_timeout') AS unanswered`);
  expect(server).toEqual({ idle: "10", unanswered: "25000" });

  expect(await restingTimer(noticesLoss(db.systemUrl))).toBe("keepalive");
  // negative control: the driver's own settings
  expect(await restingTimer({ connectionString: db.systemUrl })).toBe("none");
});

test.each(["address", "environment"])("what the %s asks of the server stays beside that", async (place) => {
  const asked = "-c search_path=pg_catalog";
  const url = new URL(db.systemUrl);
  if (place === "address") url.searchParams.set("options", asked);
  else vi.stubEnv("PGOPTIONS", asked);
  const asks = openDatabase({ url: url.toString(), applicationName: "test options", connectionsMax: 1 });
  try {
    const [server] = await asks.query(sql`
      SELECT current_setting('search_path') AS path, current_setting('tcp_user_timeout') AS unanswered`);
    expect(server).toEqual({ path: "pg_catalog", unanswered: "25000" });
  } finally {
    vi.unstubAllEnvs();
    await asks.close();
  }
});

/** Which timer the kernel keeps for this end of a connection on which nothing happens (proc_net_tcp, column `tr`). */
async function restingTimer(options: pg.ClientConfig): Promise<"keepalive" | "none"> {
  const client = new pg.Client(options);
  await client.connect();
  try {
    const { rows } = await client.query<{ here: number; there: number }>(
      "SELECT client_port AS here, inet_server_port() AS there FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    );
    // Connections to other servers, also those that have ended, may leave from the same port.
    const [here, there] = [rows[0]?.here, rows[0]?.there].map(
      (port = 0) => `:${port.toString(16).toUpperCase().padStart(4, "0")}`,
    ) as [string, string]; // two in, two out
    return await until("a connection at rest", async () => {
      const lines = (await readFile("/proc/net/tcp", "utf8")).split("\n").map((line) => line.trim().split(/\s+/));
      const mine = lines.find(([, local, remote]) => local?.endsWith(here) && remote?.endsWith(there));
      const timer = mine?.[5]?.slice(0, 2);
      return timer === "02" ? "keepalive" : timer === "00" && "none";
    });
  } finally {
    await client.end();
  }
}
