import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { makeApiToken, makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { until as eventually } from "../../../test/support/until.ts";
import { DomainError } from "@cloudpods/shared/errors";
import { openDatabase, type Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { eventStream, type ServerSentEvent, type StreamPosition } from "./event-stream.ts";

let db: TestDatabase;
let app: TestApp["app"];
let person: Person;
const shutdown = new AbortController();

/** What the next stream gives, and where it began. */
let source: (position: StreamPosition) => AsyncIterable<ServerSentEvent>;
let position: StreamPosition | undefined;
let ended = 0;

async function* numbers({ lastEventId, signal }: StreamPosition): AsyncIterable<ServerSentEvent> {
  try {
    for (let seq = Number(lastEventId ?? 0) + 1; seq <= 3; seq++)
      yield { id: String(seq), event: "step", data: { seq, bytes: 2n ** 60n, text: "a\nb" } };
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  } finally {
    ended++;
  }
}

function buildStreamApp(of: Pick<TestDatabase, "system" | "api"> = db) {
  return buildTestApp(of, {
    shutdown: shutdown.signal,
    register: (routes) => {
      registerSecurityRoutes(routes, { secureCookies: true });
      eventStream(routes, {
        path: "/api/numbers/:which",
        summary: "numbers",
        tags: [],
        access: { scope: "READ" },
        async open({ params }, ctx) {
          if (params.which === "none") throw new DomainError("not-found", "NONE", "none");
          await ctx.inTenant((tx) => tx.query(sql`SELECT 1`));
          return (from) => {
            position = from;
            return source(from);
          };
        },
      });
    },
  }).app;
}

beforeAll(async () => {
  db = await createTestDatabase();
  app = buildStreamApp();
  person = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
});
beforeEach(() => {
  source = numbers;
  ended = 0;
});
afterAll(() => db.close());

async function listen(headers: Record<string, string> = {}, on = app) {
  const response = await on.request("/api/numbers/all", { headers: { ...person.headers, ...headers } });
  if (response.body === null) throw new Error("no body");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  return {
    response,
    reader,
    /** Reads until the text so far has `part`. */
    until: async (part: string): Promise<string> => {
      let text = "";
      while (!text.includes(part)) {
        const { done, value } = await reader.read();
        if (done) throw new Error(`the stream ended before ${JSON.stringify(part)}: ${JSON.stringify(text)}`);
        text += value;
      }
      return text;
    },
    /** Reads to the end; gives the time until then. */
    toEnd: async (): Promise<number> => {
      const startedMs = performance.now();
      while (!(await reader.read()).done);
      return performance.now() - startedMs;
    },
  };
}

/** A question is asked within half a second (below), on a machine that may stand still for seconds. */
const soonMs = 10_000;

/** Whether nobody has or waits for a connection of the database. */
function isAtRest({ pool }: Database): boolean {
  return pool.totalCount === pool.idleCount && pool.waitingCount === 0;
}

test("events come in the form of the standard, each data one line of JSON", async () => {
  const { response, until, reader } = await listen();
  expect([response.status, response.headers.get("content-type"), response.headers.get("cache-control")]).toEqual([
    200,
    "text/event-stream",
    "no-store",
  ]);
  const text = await until("id: 3\n");
  expect(text.split("\n\n")[0]).toBe(
    'id: 1\nevent: step\ndata: {"seq":1,"bytes":"1152921504606846976","text":"a\\nb"}',
  );
  await reader.cancel();
  await eventually("the end of its source", () => ended === 1);
});

test("a client that reconnects goes on after the last event it has seen", async () => {
  const { until, reader } = await listen({ "last-event-id": "2" });
  expect(await until("id: 3\n")).not.toContain("id: 2\n");
  expect(position?.lastEventId).toBe("2");
  await reader.cancel();
});

test("refusals come before the stream begins", async () => {
  expect((await send(app, "GET", "/api/numbers/all")).status).toBe(401);
  expect((await send(app, "GET", "/api/numbers/none", { headers: person.headers })).json["error"]).toBe("NONE");
});

test("an open stream holds no connection of the database", async () => {
  const streams = await Promise.all(Array.from({ length: 30 }, () => listen()));
  await Promise.all(streams.map((stream) => stream.until("id: 3\n")));
  await eventually("the return of all connections", () => isAtRest(db.api));
  await Promise.all(streams.map((stream) => stream.reader.cancel()));
  await eventually("the end of their sources", () => ended === 30);
});

test("the end of the session ends its streams soon, those of others stay", async () => {
  const other = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
  const stays = await listen(other.headers);
  const leaving = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
  const goes = await listen(leaving.headers);
  await Promise.all([stays.until("id: 3\n"), goes.until("id: 3\n")]);
  await send(app, "POST", "/api/auth/logout", { headers: leaving.headers });
  expect(await goes.toEnd()).toBeLessThan(soonMs);
  expect(ended).toBe(1);
  await stays.reader.cancel();
});

test("the revocation of an API token and the end of its user do the same", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const token = await makeApiToken(app, owner, { scopes: ["READ"] });
  const byToken = await listen(token.headers);
  await byToken.until("id: 3\n");
  await send(app, "POST", `/api/security/tokens/${token.id}/revoke`, { headers: owner.headers });
  expect(await byToken.toEnd()).toBeLessThan(soonMs);
  const bySession = await listen(owner.headers);
  await bySession.until("id: 3\n");
  await db.system.execute(sql`UPDATE users SET is_active = false WHERE id = ${owner.userId}`);
  expect(await bySession.toEnd()).toBeLessThan(soonMs);
});

test("who loses his role loses the streams that he has by it", async () => {
  const tenantId = await makeTenant(db);
  const member = await makePerson(db, app, { tenants: { [tenantId]: "member" } });
  const operator = await makePerson(db, app, { platformRole: "OPERATOR" });
  const [asMember, asOperator] = [
    await listen(member.headers),
    await listen({ ...operator.headers, "x-tenant-id": tenantId }),
  ];
  await Promise.all([asMember.until("id: 3\n"), asOperator.until("id: 3\n")]);
  await db.system.execute(sql`DELETE FROM memberships WHERE user_id = ${member.userId}`);
  expect(await asMember.toEnd()).toBeLessThan(soonMs);
  expect(ended).toBe(1);
  await db.system.execute(sql`UPDATE users SET platform_role = 'USER' WHERE id = ${operator.userId}`);
  expect(await asOperator.toEnd()).toBeLessThan(soonMs);
});

test("a silent stream says every 15 s that it is still there", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    // An app of its own: what it schedules now is never called when time is real again.
    const { until, reader } = await listen({ "last-event-id": "3" }, buildStreamApp());
    const comment = until(": still here\n\n");
    await vi.advanceTimersByTimeAsync(14_900);
    expect(await Promise.race([comment, Promise.resolve("nothing yet")])).toBe("nothing yet");
    await vi.advanceTimersByTimeAsync(200);
    expect(await comment).toBe(": still here\n\n");
    await reader.cancel();
  } finally {
    vi.useRealTimers();
  }
});

test("credentials are asked for twice a second while a stream is open, and not any more when none is", async () => {
  let asked = 0;
  const own = openDatabase({ url: db.systemUrl, applicationName: "test", connectionsMax: 2 });
  own.pool.on("acquire", () => asked++);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const stream = await listen({}, buildStreamApp({ system: own, api: db.api }));
    await stream.until("id: 3\n");
    const before = asked;
    await vi.advanceTimersByTimeAsync(500);
    await eventually("a question", () => asked > before && isAtRest(own));
    await stream.reader.cancel();
    // The question that was already on its way.
    await vi.advanceTimersByTimeAsync(500);
    await eventually("its answer", () => isAtRest(own));
    const last = asked;
    await vi.advanceTimersByTimeAsync(5_000);
    await sleep(50);
    expect(asked).toBe(last);
  } finally {
    vi.useRealTimers();
    await own.close();
  }
});

test("a source that fails ends the stream and is given back", async () => {
  source = async function* () {
    yield { data: 1 };
    throw new Error("the source broke");
  };
  const { reader, until } = await listen();
  await until("data: 1");
  await expect(reader.read()).rejects.toThrow("the source broke");
});

test("the end of the process ends all streams", async () => {
  const { until, toEnd } = await listen();
  await until("id: 3\n");
  shutdown.abort();
  expect(await toEnd()).toBeLessThan(soonMs);
  expect(ended).toBe(1);
});
