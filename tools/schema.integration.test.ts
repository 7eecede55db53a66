import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../test/support/postgres.ts";
import { describeSchema } from "./describe-schema.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

test("schema.sql is what the migrations make", async () => {
  const committed = await readFile(join(import.meta.dirname, "../control-plane/schema.sql"), "utf8");
  expect(await describeSchema(db.system), "run npm run schema").toBe(committed);
});
