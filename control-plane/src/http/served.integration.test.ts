import { serve, type ServerType } from "@hono/node-server";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bearer, makePerson, makeTenant, testPassword, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp } from "../../../test/support/test-app.ts";
import { until } from "../../../test/support/until.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { eventStream } from "./event-stream.ts";

let db: TestDatabase;
let server: ServerType;
let url: string;
let person: Person;
const shutdown = new AbortController();
let openSources = 0;

beforeAll(async () => {
  db = await createTestDatabase();
  const { app } = buildTestApp(db, {
    shutdown: shutdown.signal,
    register: (routes) => {
      registerSecurityRoutes(routes, { secureCookies: false });
      eventStream(routes, {
        path: "/api/ticks",
        summary: "one event, then silence",
        tags: [],
        access: { scope: "READ" },
        open: async () =>
          async function* ({ signal }) {
            openSources++;
            try {
              yield { data: "tick" };
              await new Promise((resolve) => signal.addEventListener("abort", resolve));
            } finally {
              openSources--;
            }
          },
      });
    },
  });
  person = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
  const address = await new Promise<AddressInfo>((resolve) => {
    server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, resolve);
  });
  url = `http://127.0.0.1:${address.port}`;
});
afterAll(() => db.close());

test("over a real connection the client's address is known and the cookie works without Secure", async () => {
  const login = await fetch(`${url}/api/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email: person.email, password: testPassword }),
  });
  const cookie = login.headers.getSetCookie().map((line) => line.split(";")[0]);
  expect(login.headers.getSetCookie().join()).not.toContain("Secure");
  const sessions = await fetch(`${url}/api/security/me/sessions`, { headers: { cookie: cookie.join("; ") } });
  expect(await sessions.json()).toMatchObject({ data: [{ current: true, address: "127.0.0.1" }, {}] });
});

test("a client that hangs up ends its source", async () => {
  const gone = new AbortController();
  const response = await fetch(`${url}/api/ticks`, { headers: bearer(person.token), signal: gone.signal });
  await response.body?.getReader().read();
  expect(openSources).toBe(1);
  gone.abort();
  await until("the end of its source", () => openSources === 0);
});

test("the server can close while streams are open", async () => {
  const response = await fetch(`${url}/api/ticks`, { headers: bearer(person.token) });
  const reader = response.body?.getReader();
  await reader?.read();
  const closed = new Promise((resolve) => server.close(resolve));
  shutdown.abort();
  await closed;
  expect((await reader?.read())?.done).toBe(true);
  expect(openSources).toBe(0);
});
