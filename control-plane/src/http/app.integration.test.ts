import { DomainError } from "@cloudpods/shared/errors";
import { z } from "@hono/zod-openapi";
import { Writable } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../../../test/support/free-port.ts";
import { makePerson, makeTenant, send, testPassword, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { openDatabase } from "../platform/database.ts";
import { createLog } from "../platform/log.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { counter, noBody, timestamp } from "./fields.ts";
import { route } from "./route.ts";
import type { RouteTable } from "./route-table.ts";
import { checkVersion } from "./version-check.ts";

let db: TestDatabase;
let app: TestApp["app"];
let person: Person;
const logged: string[] = [];
const log = createLog({
  level: "debug",
  destination: new Writable({
    write(chunk: Buffer, _encoding, done) {
      logged.push(chunk.toString());
      done();
    },
  }),
});

let handled = 0;

function register(routes: RouteTable): void {
  registerSecurityRoutes(routes, { secureCookies: true });
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/:pod/echo",
    summary: "gives back what it got",
    tags: ["probe"],
    access: "public",
    request: {
      query: z.object({ n: z.coerce.number().int().optional() }),
      body: z.strictObject({ text: z.string(), list: z.array(z.object({ "a/b": z.number() })).default([]) }),
      example: { text: "hello" },
    },
    responses: { 200: z.object({ pod: z.string(), text: z.string(), at: timestamp, big: counter }) },
    async handler({ params, body }, ctx) {
      handled++;
      const row = {
        pod: params.pod,
        text: body.text,
        at: ctx.now,
        big: 2n ** 63n,
        secret: "column that was not declared",
      };
      return { status: 200, body: row };
    },
  });
  // Registered after the parameter, and reached nevertheless.
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/plans",
    summary: "a literal",
    tags: ["probe"],
    access: "public",
    responses: { 200: z.string() },
    handler: async () => ({ status: 200, body: "plans" }),
  });
  route(routes, {
    method: "put",
    path: "/api/versioned",
    summary: "is at version 3",
    tags: ["probe"],
    access: "public",
    checksVersion: true,
    responses: { 204: noBody },
    async handler({ ifMatch }) {
      checkVersion(ifMatch, 3);
      return { status: 204 };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/fails/:how",
    summary: "fails",
    tags: ["probe"],
    access: "public",
    responses: { 200: z.object({ n: z.number() }) },
    async handler({ params }, ctx) {
      if (params.how === "capacity")
        throw new DomainError("no-capacity", "NO_CAPACITY", "no place", { details: { nodes: 0 } });
      if (params.how === "statement") await ctx.system.query(sql`SELECT 1 / 0`);
      if (params.how === "slowly") await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
      if (params.how === "shape") return { status: 200, body: JSON.parse('{"n":"text"}') };
      throw new Error("the password of the database is hunter2");
    },
  });
}

beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, { register, log }).app;
  person = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
});
afterAll(() => db.close());

const echo = "/api/cloud-pods/12/echo";

test("an answer has what its schema declares: dates as text, 64 bits as text, nothing else", async () => {
  const answer = await send(app, "POST", echo, { body: { text: "hello" } });
  expect(answer.status).toBe(200);
  expect(answer.json).toEqual({
    pod: "12",
    text: "hello",
    at: expect.stringMatching(/^\d{4}-.*Z$/),
    big: "9223372036854775808",
  });
});

test("the older spelling reaches the same handler and is not in the document", async () => {
  expect((await send(app, "POST", "/api/cloudpods/12/echo", { body: { text: "hello" } })).json["pod"]).toBe("12");
  expect((await send(app, "GET", "/api/cloudpodsX/plans")).status).toBe(404);
  expect((await send(app, "GET", "/openapi.json")).text).not.toContain("/api/cloudpods");
});

test("a pod is a VMID or a UUID; anything else is no pod", async () => {
  for (const pod of ["100", "019a0000-0000-7000-8000-000000000001"]) {
    expect((await send(app, "POST", `/api/cloud-pods/${pod}/echo`, { body: { text: "x" } })).json["pod"]).toBe(pod);
  }
  for (const pod of ["12x", "..", "019a0000", "12345678901", "%2e%2e%2f"]) {
    expect((await send(app, "POST", `/api/cloud-pods/${pod}/echo`, { body: { text: "x" } })).status).toBe(404);
  }
  expect((await send(app, "GET", "/api/cloud-pods/plans")).json).toEqual({});
  expect((await send(app, "GET", "/api/cloud-pods/plans")).text).toBe('"plans"');
});

test.each([
  [{ list: [{ "a/b": "x" }] }, ["/text", "/list/0/a~1b"]],
  [{ text: "x", more: 1, "o~t": 2 }, ["/more", "/o~0t"]],
  [[], [""]],
])("the body %j is refused at %j and not handled", async (body, pointers) => {
  const before = handled;
  const answer = await send(app, "POST", echo, { body });
  expect([answer.status, answer.json["error"]]).toEqual([422, "VALIDATION_FAILED"]);
  expect(answer.json["errors"]).toEqual(pointers.map((pointer) => ({ pointer, detail: expect.any(String) })));
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(handled).toBe(before);
});

test("a bad query is refused by its name", async () => {
  const answer = await send(app, "POST", `${echo}?n=many`, { body: { text: "x" } });
  expect(answer.json).toMatchObject({ status: 422, errors: [{ pointer: "/query/n" }] });
});

test("what a route does not declare is refused by its name and not handled", async () => {
  const before = handled;
  for (const [method, path, body, pointers] of [
    ["POST", `${echo}?n=1&N=2&dryrun=true`, { text: "x" }, ["/query/N", "/query/dryrun"]],
    ["GET", "/api/cloud-pods/plans?foo=1", undefined, ["/query/foo"]],
    ["PUT", "/api/versioned?a~b=1", undefined, ["/query/a~0b"]],
    ["PUT", "/api/versioned", { finalBackup: true }, ["/finalBackup"]],
    ["PUT", "/api/versioned", "text", [""]],
  ] as const) {
    const answer = await send(app, method, path, { body });
    expect([answer.status, answer.json["error"]], path).toEqual([422, "VALIDATION_FAILED"]);
    expect(answer.json["errors"]).toEqual(pointers.map((pointer) => ({ pointer, detail: expect.any(String) })));
  }
  expect(handled).toBe(before);
  for (const body of [undefined, {}]) expect((await send(app, "PUT", "/api/versioned", { body })).status).toBe(204);
});

test("what is not JSON, not said to be, or too large is refused before anything reads it", async () => {
  const post = async (body: string, type: string) => {
    const response = await app.request(echo, { method: "POST", body, headers: { "content-type": type } });
    return [response.status, ((await response.json()) as { error: string }).error];
  };
  expect(await post("{", "application/json")).toEqual([400, "MALFORMED_JSON"]);
  expect(await post('{"text":"x"}', "text/plain")).toEqual([415, "UNSUPPORTED_MEDIA_TYPE"]);
  expect(await post(JSON.stringify({ text: "x".repeat(1024 * 1024) }), "application/json")).toEqual([
    413,
    "BODY_TOO_LARGE",
  ]);
  expect(await post('{"text":"a\\u0000b"}', "application/json")).toEqual([422, "VALIDATION_FAILED"]);
  expect((await send(app, "POST", echo, { body: { text: "a\\u0000b is not NUL" } })).status).toBe(200);
});

test("unknown paths and methods are told apart", async () => {
  expect((await send(app, "GET", "/api/nothing")).json).toMatchObject({ status: 404, error: "PATH_UNKNOWN" });
  const answer = await send(app, "DELETE", echo);
  expect(answer.json).toMatchObject({ status: 405, error: "METHOD_NOT_ALLOWED" });
  expect(answer.headers.get("allow")).toBe("POST");
});

test("If-Match with another version is 412", async () => {
  const put = async (version?: string) =>
    (await send(app, "PUT", "/api/versioned", { headers: version === undefined ? {} : { "if-match": version } }))
      .status;
  expect([await put(), await put('"3"'), await put('"2"'), await put("rubbish")]).toEqual([204, 204, 412, 412]);
  const unchecked = await send(app, "POST", echo, { headers: { "if-match": '"3"' }, body: { text: "x" } });
  expect(unchecked.json).toMatchObject({ status: 412, error: "IF_MATCH_UNSUPPORTED" });
  const { paths } = JSON.parse((await send(app, "GET", "/openapi.json")).text);
  const header = expect.objectContaining({ name: "If-Match", in: "header" });
  expect(paths["/api/versioned"].put.parameters).toContainEqual(header);
  expect(paths["/api/cloud-pods/{pod}/echo"].post.parameters).not.toContainEqual(header);
});

test("refusals are problems; unknown errors tell the request id only, and the log tells them", async () => {
  const capacity = await send(app, "GET", "/api/fails/capacity");
  expect(capacity.json).toMatchObject({
    status: 503,
    error: "NO_CAPACITY",
    message: "no place",
    details: { nodes: 0 },
  });
  expect(capacity.headers.get("retry-after")).toBe("60");
  for (const how of ["unknown", "statement", "shape"]) {
    const answer = await send(app, "GET", `/api/fails/${how}`, { headers: { "x-request-id": "my-request-1" } });
    expect(answer.json).toMatchObject({ status: 500, error: "INTERNAL_ERROR", requestId: "my-request-1" });
    expect(answer.text).not.toMatch(/hunter2|division|invalid_type/);
    expect(answer.headers.get("x-request-id")).toBe("my-request-1");
  }
  expect(logged.filter((line) => line.includes("request failed") && line.includes("my-request-1"))).toHaveLength(3);
});

test("a request that takes too long is given up", async () => {
  const hasty = buildTestApp(db, { register, deadlineMs: 500 }).app;
  const answer = await send(hasty, "GET", "/api/fails/slowly");
  expect(answer.json).toMatchObject({ status: 503, error: "DEADLINE_EXCEEDED" });
});

test("the log has each request with its route and caller, and no secret", async () => {
  logged.length = 0;
  await send(app, "POST", "/api/auth/login", { body: { email: person.email, password: testPassword } });
  await send(app, "GET", "/api/security/tokens", {
    headers: { ...person.headers, cookie: `cloudpods_session=${person.token}` },
  });
  const lines = logged.map((line): Record<string, unknown> => ({ ...JSON.parse(line) }));
  expect(lines).toContainEqual(
    expect.objectContaining({
      msg: "request",
      route: "GET /api/security/tokens",
      status: 200,
      actor: `user:${person.userId}`,
      tenantId: expect.any(String),
      requestId: expect.any(String),
    }),
  );
  expect(logged.join("")).not.toContain(testPassword);
  expect(logged.join("")).not.toContain(person.token);
});

test("every answer has headers that browsers keep to", async () => {
  for (const path of ["/api/cloud-pods/plans", "/api/nothing", "/healthz"]) {
    const { headers } = await send(app, "GET", path);
    expect(headers.get("content-security-policy")).toBe("default-src 'none'; frame-ancestors 'none'");
    expect([headers.get("x-content-type-options"), headers.get("x-frame-options")]).toEqual(["nosniff", "DENY"]);
  }
});

test("the reference page works from our own files under its policy", async () => {
  const page = await send(app, "GET", "/docs");
  expect(page.headers.get("content-security-policy")).toContain("script-src 'self';");
  expect(page.text).not.toMatch(/https?:\/\/|<script>/);
  const sources = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? "");
  expect(sources).toHaveLength(4);
  for (const source of sources) expect([source, (await send(app, "GET", source)).status]).toEqual([source, 200]);
  expect((await send(app, "GET", "/docs/package.json")).status).toBe(404);
  expect((await send(app, "GET", "/docs/..%2f..%2fpackage.json")).status).toBe(404);
});

test("the document is OpenAPI 3.1 with every route, its parameters and its refusals", async () => {
  const document = JSON.parse((await send(app, "GET", "/openapi.json")).text);
  expect(document.openapi).toBe("3.1.0");
  const operation = document.paths["/api/cloud-pods/{pod}/echo"].post;
  expect(operation.requestBody.content["application/json"]).toMatchObject({ example: { text: "hello" } });
  expect(operation.responses.default.content["application/problem+json"].schema).toEqual({
    $ref: "#/components/schemas/Problem",
  });
  expect(operation.security).toEqual([]);
  expect(document.paths["/api/security/tokens"].post.parameters).toContainEqual(
    expect.objectContaining({ name: "Idempotency-Key", in: "header" }),
  );
});

test("health, readiness and metrics", async () => {
  expect((await send(app, "GET", "/healthz")).json).toEqual({ status: "ok" });
  const ready = await send(app, "GET", "/readyz");
  expect([ready.status, ready.json]).toEqual([
    200,
    {
      status: "ready",
      checks: {
        database: { ready: true, facts: { synchronous_commit: expect.any(String), synchronous_standby_names: "" } },
      },
    },
  ]);
  const metrics = await send(app, "GET", "/metrics");
  expect(metrics.text).toMatch(
    /cloudpods_http_request_duration_seconds_count\{route="POST \/api\/cloud-pods\/:pod\/echo",status="200"\} \d+/,
  );
});

test("a part that is not ready makes the whole not ready, and says which without telling addresses", async () => {
  const broken = buildTestApp(db, {
    register,
    readiness: { broker: () => Promise.reject(Object.assign(new Error("connect 10.1.2.3"), { code: "ECONNREFUSED" })) },
  });
  const ready = await send(broken.app, "GET", "/readyz");
  expect([ready.status, ready.headers.get("retry-after")]).toEqual([503, "2"]);
  expect(ready.json).toMatchObject({
    status: "not-ready",
    checks: { database: { ready: true }, broker: { ready: false, reason: "ECONNREFUSED" } },
  });
});

test("without the database requests are refused with a time to come back, and work again with it", async () => {
  const url = new URL(db.systemUrl);
  url.port = String(await freePort()); // nobody listens there
  const away = openDatabase({ url: url.toString(), applicationName: "test", connectionsMax: 2 });
  const cut = buildTestApp({ system: away, api: away }, { register }).app;
  const answer = await send(cut, "GET", "/api/security/me/profile", { headers: person.headers });
  expect(answer.json).toMatchObject({ status: 503, error: "DATABASE_UNAVAILABLE" });
  expect(answer.headers.get("retry-after")).toBe("2");
  expect((await send(cut, "GET", "/readyz")).json).toMatchObject({
    checks: { database: { ready: false, reason: "ECONNREFUSED" } },
  });
  expect((await send(cut, "GET", "/healthz")).status).toBe(200);
  await away.close();
});

test("a pool without a free connection is told as the database's absence", async () => {
  const narrow = openDatabase({ url: db.systemUrl, applicationName: "test", connectionsMax: 1 });
  const cut = buildTestApp({ system: narrow, api: db.api }, { register, deadlineMs: 20_000 }).app;
  const gate = Promise.withResolvers<void>();
  const holding = narrow.transaction(() => gate.promise);
  const answer = await send(cut, "GET", "/api/security/me/profile", { headers: person.headers });
  expect(answer.json).toMatchObject({ status: 503, error: "DATABASE_UNAVAILABLE" });
  gate.resolve();
  await holding;
  expect((await send(cut, "GET", "/api/security/me/profile", { headers: person.headers })).status).toBe(200);
  await narrow.close();
});
