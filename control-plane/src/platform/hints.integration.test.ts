import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { openHints, type Hints } from "./hints.ts";
import { createLog } from "./log.ts";
import { sql } from "./sql.ts";

let db: TestDatabase;
let one: Hints;
let two: Hints;

beforeAll(async () => {
  db = await createTestDatabase();
  const log = createLog({ level: "silent" });
  [one, two] = [openHints({ url: db.systemUrl, log }), openHints({ url: db.apiUrl, log })];
  await Promise.all([one.listening, two.listening]);
});
afterAll(async () => {
  await Promise.all([one.close(), two.close()]);
  await db.close();
});

function collect(hints: Hints): { keys: string[]; stop: () => void } {
  const keys: string[] = [];
  return { keys, stop: hints.on("tasks", (key) => keys.push(key)) };
}

describe("hints between replicas", () => {
  test("reach the sender at once and the other replica soon, each once", async () => {
    const [here, there] = [collect(one), collect(two)];
    one.send("tasks", "a");
    expect(here.keys).toEqual(["a"]);
    await until("the hint", () => there.keys.includes("a"));
    two.send("tasks", "b");
    await until("the hint back", () => here.keys.includes("b"));
    expect([here.keys, there.keys]).toEqual([
      ["a", "b"],
      ["a", "b"],
    ]);
    here.stop();
    there.stop();
  });

  test("thousands at once are packed into few notifications, none is lost", async () => {
    const there = collect(two);
    const wanted = Array.from({ length: 5_000 }, (_, index) => `key-${index}`);
    for (const key of wanted) one.send("tasks", key);
    await until("all hints", () => there.keys.length >= wanted.length);
    expect(new Set(there.keys)).toEqual(new Set(wanted));
    there.stop();
  });

  test("a lost connection is replaced", async () => {
    const there = collect(two);
    await db.system.query(sql`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cloudpods-hints' AND usename = 'cloudpods_system' AND datname = current_database()`);
    let sent = 0;
    await until("a hint over the new connection", () => {
      one.send("tasks", `again-${sent++}`);
      return there.keys.length > 0;
    });
    there.stop();
  });

  test("keys are single short words", () => {
    expect(() => one.send("tasks", "two words")).toThrow(TypeError);
    expect(() => one.send("tasks", "line\nbreak")).toThrow(TypeError);
  });
});
