import pg from "pg";
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
  const failures: string[] = [];
  const loops = startLoops(
    db,
    createLog({ level: "warn", destination: { write: (line) => void failures.push(line) } }),
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
    // A pool whose connections wait for each other gives up after five seconds, and the pass fails.
    expect(failures).toEqual([]);
  } finally {
    await loops.stop();
    await db.close();
  }
});

test("a pass finishes the detachment of a partition that was interrupted: its own transaction holds no snapshot", async () => {
  await database.system.execute(sql`CREATE TABLE kept (at integer) PARTITION BY RANGE (at)`);
  await database.system.execute(sql`CREATE TABLE kept_old PARTITION OF kept FOR VALUES FROM (0) TO (10)`);
  const client = new pg.Client({ connectionString: database.systemUrl });
  await client.connect();
  const outcome = Promise.withResolvers<string>();
  await client.query("SET lock_timeout = '1s'");
  // A reader holds the detachment up until it gives up half-way.
  await database.system.transaction(async (tx) => {
    await tx.query(sql`SELECT FROM kept`);
    await expect(client.query("ALTER TABLE kept DETACH PARTITION kept_old CONCURRENTLY")).rejects.toThrow(
      "lock timeout",
    );
  });
  const loops = startLoops(database.system, createLog({ level: "silent" }), [
    {
      name: "finish",
      everyMs: 60_000,
      async run() {
        await client.query("ALTER TABLE kept DETACH PARTITION kept_old FINALIZE").then(
          () => outcome.resolve("finished"),
          (error: unknown) => outcome.resolve(String(error)),
        );
        return undefined;
      },
    },
  ]);
  try {
    expect(await outcome.promise).toBe("finished");
  } finally {
    await loops.stop();
    await client.end();
  }
});

test("a pass that still waits for its turn when the loops are stopped does not begin", async () => {
  const db = openDatabase({ url: database.systemUrl, applicationName: "test loops", connectionsMax: 3 });
  const begun: string[] = [];
  const finish = Promise.withResolvers<void>();
  const loops = startLoops(
    db,
    createLog({ level: "silent" }),
    ["first", "second"].map((name) => ({
      name: `stopped-${name}`,
      everyMs: 60_000,
      async run() {
        begun.push(name);
        await finish.promise;
        return undefined;
      },
    })),
  );
  try {
    await until("the first pass", () => begun.length > 0);
    const stopped = loops.stop();
    finish.resolve();
    await stopped;
    expect(begun).toEqual(["first"]);
  } finally {
    finish.resolve();
    await db.close();
  }
});
