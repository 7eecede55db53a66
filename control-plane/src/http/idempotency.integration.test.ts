import { newId } from "@cloudpods/shared/ids";
import { z } from "@hono/zod-openapi";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, inject, test } from "vitest";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { until } from "../../../test/support/until.ts";
import { DomainError } from "@cloudpods/shared/errors";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { dryRun } from "./fields.ts";
import { route } from "./route.ts";
import type { RouteTable } from "./route-table.ts";

let db: TestDatabase;
let app: TestApp["app"];
let person: Person;
let tenantId: string;

/** What the next run of the handler waits for or does besides its effect. */
let hooks: {
  readonly hold?: Promise<void>;
  readonly entered?: () => void;
  readonly failure?: Error | undefined;
  readonly woken?: () => void;
};
beforeEach(() => {
  hooks = {};
});

const things = z.object({ id: z.string(), name: z.string(), counter: z.bigint() });

function register(routes: RouteTable): void {
  registerSecurityRoutes(routes, { secureCookies: true });
  for (const path of ["/api/things", "/api/others"] as const) {
    route(routes, {
      method: "post",
      path,
      summary: "an effect that can be counted",
      tags: [],
      access: { scope: "READ" },
      idempotent: true,
      request: {
        query: z.object({ dryRun }),
        body: z.object({ name: z.string(), size: z.number().default(1) }),
        example: { name: "x" },
      },
      responses: { 201: things, 200: z.object({ plan: z.string() }) },
      async handler({ query, body }, ctx) {
        if (query.dryRun) return { status: 200, body: { plan: "nothing" } };
        const id = newId();
        await ctx.inTenant((tx) =>
          recordAudit(tx, {
            actor: ctx.actor,
            requestId: ctx.requestId,
            tenantId: ctx.tenantId,
            action: path,
            targetType: "thing",
            targetId: id,
            detail: body,
          }),
        );
        hooks.entered?.();
        await hooks.hold;
        ctx.afterCommit(() => hooks.woken?.());
        if (hooks.failure !== undefined) throw hooks.failure;
        return {
          status: 201,
          headers: { location: `/api/things/${id}` },
          body: { id, name: body.name, counter: 2n ** 60n },
        };
      },
    });
  }
}

beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, { register }).app;
  tenantId = await makeTenant(db);
  person = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
});
afterAll(() => db.close());

async function create(key: string | undefined, body: unknown = { name: "a" }, path = "/api/things", who = person) {
  return await send(app, "POST", path, {
    headers: { ...who.headers, ...(key === undefined ? {} : { "idempotency-key": key }) },
    body,
  });
}

const effects = async (): Promise<number> =>
  (await db.system.query(sql`SELECT FROM audit_log WHERE target_type = 'thing' AND tenant_id = ${tenantId}`)).length;
const keys = async (key: string) =>
  await db.system.query<{ status: number }>(sql`SELECT status FROM idempotency_keys WHERE key = ${key}`);

/** How many effects `work` had. */
async function effectsOf(work: () => Promise<unknown>): Promise<number> {
  const before = await effects();
  await work();
  return (await effects()) - before;
}

test("the same key and request give the first answer again, and one effect", async () => {
  const done = await effectsOf(async () => {
    const first = await create("same");
    const second = await create("same");
    expect([first.status, second.status]).toEqual([201, 201]);
    expect(second.text).toBe(first.text);
    expect(second.json["counter"]).toBe("1152921504606846976");
    expect(second.headers.get("location")).toBe(first.headers.get("location"));
    expect([first.headers.get("idempotency-replayed"), second.headers.get("idempotency-replayed")]).toEqual([
      null,
      "true",
    ]);
  });
  expect(done).toBe(1);
});

test("spacing, order and defaults of the body do not make it another request", async () => {
  const first = await create("order", { name: "a", size: 1 });
  const second = await create("order", { size: 1, name: "a" });
  const third = await create("order", { name: "a" });
  expect([second.text, third.text]).toEqual([first.text, first.text]);
});

test("the same key with another body is refused", async () => {
  const done = await effectsOf(async () => {
    await create("reused", { name: "a" });
    const second = await create("reused", { name: "b" });
    expect([second.status, second.json["error"]]).toEqual([409, "IDEMPOTENCY_KEY_REUSED"]);
  });
  expect(done).toBe(1);
});

test("the key of another route, user or tenant is another key", async () => {
  const colleague = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const other = await makeTenant(db);
  const stranger = await makePerson(db, app, { tenants: { [other]: "owner" } });
  const answers = [
    await create("mine"),
    await create("mine", undefined, "/api/others"),
    await create("mine", undefined, "/api/things", colleague),
    await create("mine", undefined, "/api/things", stranger),
  ];
  expect(answers.map((answer) => answer.status)).toEqual([201, 201, 201, 201]);
  expect(answers.map((answer) => answer.headers.get("idempotency-replayed"))).toEqual([null, null, null, null]);
  expect(await keys("mine")).toHaveLength(4);
});

test("without a key every request has its effect", async () => {
  expect(
    await effectsOf(async () => {
      await create(undefined);
      await create(undefined);
    }),
  ).toBe(2);
});

test("many at once with one key have one effect, and all who wait get its answer", async () => {
  const done = await effectsOf(async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => create("many")));
    expect(new Set(answers.map((answer) => answer.text)).size).toBe(1);
    expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") === "true")).toHaveLength(7);
  });
  expect(done).toBe(1);
});

test("who has waited 2 s for the first is told that it is under way", async () => {
  const gate = Promise.withResolvers<void>();
  const inside = Promise.withResolvers<void>();
  hooks = { hold: gate.promise, entered: inside.resolve };
  const first = create("slow");
  await inside.promise;
  const startedMs = performance.now();
  const second = await create("slow");
  expect([second.status, second.json["error"], second.headers.get("retry-after")]).toEqual([
    409,
    "IDEMPOTENCY_IN_PROGRESS",
    "1",
  ]);
  expect(performance.now() - startedMs).toBeGreaterThan(1_900);
  gate.resolve();
  expect((await first).status).toBe(201);
  expect((await create("slow")).headers.get("idempotency-replayed")).toBe("true");
});

test.each([
  ["a refusal", new DomainError("quota-exceeded", "QUOTA_EXCEEDED", "too much"), 403],
  ["a crash", new Error("boom"), 500],
])("%s leaves neither effect nor key, and the same key works afterwards", async (_, failure, status) => {
  const key = `failed-${status}`;
  let woken = 0;
  hooks = { failure, woken: () => woken++ };
  expect(await effectsOf(async () => expect((await create(key)).status).toBe(status))).toBe(0);
  expect(await keys(key)).toEqual([]);
  expect(woken).toBe(0);
  hooks = { woken: () => woken++ };
  expect(await effectsOf(async () => expect((await create(key)).status).toBe(201))).toBe(1);
  expect(woken).toBe(1);
});

test("a request that is run again after a deadlock has one effect and wakes once", async () => {
  let runs = 0;
  let woken = 0;
  hooks = {
    entered: () => runs++,
    woken: () => woken++,
    get failure() {
      return runs === 1 ? Object.assign(new Error("deadlock detected"), { code: "40P01" }) : undefined;
    },
  };
  expect(await effectsOf(async () => expect((await create("deadlock")).status).toBe(201))).toBe(1);
  expect([runs, woken]).toEqual([2, 1]);
});

test("a request whose connection died between effect and answer has left nothing", async () => {
  const gate = Promise.withResolvers<void>();
  const inside = Promise.withResolvers<void>();
  hooks = { hold: gate.promise, entered: inside.resolve };
  const done = await effectsOf(async () => {
    const lost = create("died");
    await inside.promise;
    await endTenantsTransactions();
    gate.resolve();
    expect((await lost).json["error"]).toBe("DATABASE_UNAVAILABLE");
  });
  expect(done).toBe(0);
  expect(await keys("died")).toEqual([]);
  expect((await create("died")).status).toBe(201);
});

/** Ends the connections of tenants' open transactions, as the server does when the process was killed. */
async function endTenantsTransactions(): Promise<void> {
  const superuser = new pg.Client({ connectionString: inject("postgres").superuserUrl });
  await superuser.connect();
  const ended = await superuser.query(
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'cloudpods_api' AND datname = $1 AND state = 'idle in transaction'",
    [new URL(db.apiUrl).pathname.slice(1)],
  );
  await superuser.end();
  expect(ended.rowCount).toBe(1);
}

test("a request that was given up cannot commit later", async () => {
  const hasty = buildTestApp(db, { register, deadlineMs: 500 }).app;
  const gate = Promise.withResolvers<void>();
  hooks = { hold: gate.promise };
  const done = await effectsOf(async () => {
    const headers = { ...person.headers, "idempotency-key": "late" };
    const late = await send(hasty, "POST", "/api/things", { headers, body: { name: "a" } });
    expect(late.json["error"]).toBe("DEADLINE_EXCEEDED");
    gate.resolve();
    // the connection returns to the pool when its transaction has ended
    await until("the end of its transaction", () => db.api.pool.idleCount === db.api.pool.totalCount);
  });
  expect(done).toBe(0);
  expect(await keys("late")).toEqual([]);
});

test("a dry run takes no key", async () => {
  expect((await create("dry", undefined, "/api/things?dryRun=true")).json).toEqual({ plan: "nothing" });
  expect(await keys("dry")).toEqual([]);
  expect((await create("dry")).status).toBe(201);
});

test("after a day the key is free again", async () => {
  await create("old");
  await db.system.execute(
    sql`UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second' WHERE key = 'old'`,
  );
  expect(await effectsOf(async () => expect((await create("old", { name: "other" })).status).toBe(201))).toBe(1);
  expect((await create("old", { name: "other" })).headers.get("idempotency-replayed")).toBe("true");
});

test.each(["", " ", "a b", "x".repeat(256), "é"])("the key %j is refused", async (key) => {
  const headers = new Headers(person.headers);
  try {
    headers.set("idempotency-key", key);
  } catch {
    return; // no client can send it
  }
  const answer = await create(headers.get("idempotency-key") ?? "");
  expect([answer.status, answer.json["error"]]).toEqual([422, "IDEMPOTENCY_KEY_INVALID"]);
});
