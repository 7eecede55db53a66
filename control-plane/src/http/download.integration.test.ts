import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { DomainError } from "@cloudpods/shared/errors";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { until } from "../../../test/support/until.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { download } from "./download.ts";

let db: TestDatabase;
let app: TestApp["app"];
let person: Person;
const shutdown = new AbortController();
let made = 0;
let ended = 0;
let linesMax = 3;
/** The next line waits for this. */
let gate: Promise<void>;

async function* lines(): AsyncGenerator<string> {
  try {
    while (made < linesMax) {
      await gate;
      made++;
      yield `${made},"é"\r\n`;
    }
  } finally {
    ended++;
  }
}

beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, {
    shutdown: shutdown.signal,
    register(routes) {
      registerSecurityRoutes(routes, { secureCookies: true });
      download(routes, {
        path: "/api/lines/:which",
        summary: "lines",
        tags: [],
        access: { scope: "READ" },
        mediaType: "text/csv",
        async open({ params }, ctx) {
          if (params.which === "none") throw new DomainError("not-found", "NONE", "none");
          await ctx.inTenant((tx) => tx.query(sql`SELECT 1`));
          return { fileName: "lines.csv", parts: lines() };
        },
      });
    },
  }).app;
});
afterAll(() => db.close());
beforeEach(async () => {
  made = 0;
  ended = 0;
  linesMax = 3;
  gate = Promise.resolve();
  person = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
});

async function open() {
  const response = await app.request("/api/lines/all", { headers: { ...person.headers } });
  const reader = response.body?.getReader() ?? expect.fail("no body");
  return reader;
}

test("sends the text as a file, to its end", async () => {
  const answer = await send(app, "GET", "/api/lines/all", { headers: person.headers });
  expect(answer.text).toBe('1,"é"\r\n2,"é"\r\n3,"é"\r\n');
  expect(answer.headers.get("content-type")).toBe("text/csv; charset=utf-8");
  expect(answer.headers.get("content-disposition")).toBe('attachment; filename="lines.csv"');
  expect(answer.headers.get("cache-control")).toBe("no-store");
  expect(ended).toBe(1);
});

test("refuses as JSON before the first byte", async () => {
  expect(await send(app, "GET", "/api/lines/none", { headers: person.headers })).toMatchObject({
    status: 404,
    json: { error: "NONE" },
  });
  expect((await send(app, "GET", "/api/lines/all")).status).toBe(401);
});

test("makes no more than the client takes, and ends when he goes", async () => {
  linesMax = 1_000_000;
  const reader = await open();
  await reader.read();
  expect(made).toBeLessThan(5);
  await reader.cancel();
  await until("the end of the source", () => ended === 1);
});

test("an end of the session breaks the connection instead of ending the text", async () => {
  linesMax = 1_000_000;
  const reader = await open();
  await reader.read();
  await db.system.execute(sql`UPDATE sessions SET revoked_at = now() WHERE id = ${person.sessionId}`);
  const drain = async (): Promise<void> => {
    while (!(await reader.read()).done) await new Promise((resolve) => setImmediate(resolve));
  };
  await expect(drain()).rejects.toThrow("the credential has ended");
  expect(ended).toBe(1);
});

test("a text that cannot be finished breaks the connection", async () => {
  const held = Promise.withResolvers<void>();
  const reader = await open();
  await reader.read();
  await reader.read();
  gate = held.promise;
  held.reject(new Error("the database is away"));
  const drain = async (): Promise<void> => {
    linesMax = 10;
    while (!(await reader.read()).done);
  };
  await expect(drain()).rejects.toThrow("the database is away");
});

test("the document tells the media type", async () => {
  const document = await send(app, "GET", "/openapi.json");
  expect(document.json).toMatchObject({
    paths: { "/api/lines/{which}": { get: { responses: { 200: { content: { "text/csv": {} } } } } } },
  });
});
