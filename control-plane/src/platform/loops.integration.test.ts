import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { openDatabase } from "./database.ts";
import { createLog } from "./log.ts";
import { startLoops } from "./loops.ts";
import { sql } from "./sql.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.close());

test("more loops than connections begin together, and none waits for a connection that another holds", async () => {
  const db = openDatabase({ url: database.systemUrl, applicationName: "test loops", connectionsMax: 6 });
  const passes = new Map<string, number>();
  const names = Array.from({ length: 20 }, (_, index) => `crowd-${index}`);
  const startedMs = performance.now();
  const loops = startLoops(
    db,
    createLog({ level: "silent" }),
    names.map((name) => ({
      name,
      everyMs: 20,
      async run() {
        await db.query(sql`SELECT pg_sleep(0.005)`);
        passes.set(name, (passes.get(name) ?? 0) + 1);
        return undefined;
      },
    })),
  );
  try {
    await until("two passes of each", () => names.every((name) => (passes.get(name) ?? 0) >= 2));
    // A pool whose connections wait for each other gives up after five seconds.
    expect(performance.now() - startedMs).toBeLessThan(4_500);
  } finally {
    await loops.stop();
    await db.close();
  }
});
