import { z } from "@hono/zod-openapi";
import { afterAll, describe, expect, test } from "vitest";
import { createTestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp } from "../../../test/support/test-app.ts";
import { makeTwoTenants } from "../../../test/support/two-tenants.ts";
import { faultsOfRoute } from "../../../test/support/walk-route.ts";
import { buildWholeTestApp } from "../../../test/support/whole-app.ts";
import { sql } from "../platform/sql.ts";
import { route } from "./route.ts";
import type { RouteTable } from "./route-table.ts";

// Before the tests are collected, so that there is one for each route.
const db = await createTestDatabase();
const whole = await buildWholeTestApp(db);
const world = await makeTwoTenants(db, whole.app);
const routes = whole.routes.list().map((known) => ({ name: `${known.method.toUpperCase()} ${known.path}`, known }));
afterAll(async () => {
  await whole.close();
  await db.close();
});

test.each(routes)(
  "$name refuses strangers, the dead and the weak, and leaves another tenant's things alone",
  async ({ known }) => {
    expect(await faultsOfRoute(known, whole.app, world)).toEqual([]);
  },
);

test("the document has exactly the routes that are walked", async () => {
  const document: { paths: Record<string, Record<string, unknown>> } = JSON.parse(
    await (await whole.app.request("/openapi.json")).text(),
  );
  const documented = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const walked = routes.map(({ name }) => name.replaceAll(/:([^/]+)/g, "{$1}"));
  expect(documented.toSorted()).toEqual(walked.toSorted());
  expect(walked.length).toBeGreaterThan(40);
});

test("the document says what every parameter, group and answer means", async () => {
  interface Operation {
    readonly tags: string[];
    readonly parameters?: readonly { name: string; description?: string; schema: { description?: string } }[];
    readonly responses: Record<string, { description: string }>;
    readonly requestBody?: { content: { "application/json": { example?: unknown } } };
  }
  const document: { tags: { name: string; description: string }[]; paths: Record<string, Record<string, Operation>> } =
    JSON.parse(await (await whole.app.request("/openapi.json")).text());
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ name: `${method} ${path}`, ...operation })),
  );
  const undescribed = operations.flatMap(({ name, parameters = [] }) =>
    parameters
      .filter(({ description, schema }) => (description ?? schema.description ?? "") === "")
      .map((parameter) => `${name}: ${parameter.name}`),
  );
  expect(undescribed).toEqual([]);
  const groups = new Set(operations.flatMap(({ tags }) => tags));
  expect([...groups].toSorted()).toEqual(document.tags.map(({ name }) => name).toSorted());
  expect(document.tags.every(({ description }) => description !== "")).toBe(true);
  const withoutExample = operations.filter(
    ({ requestBody }) => requestBody !== undefined && requestBody.content["application/json"].example === undefined,
  );
  expect(withoutExample.map(({ name }) => name)).toEqual([]);
  const drain = document.paths["/api/nodes/{node}/drain"]?.["post"];
  expect(drain?.responses["202"]?.description).not.toContain("task");
  expect(drain?.responses["200"]?.description).toContain("nothing was changed");
  expect(drain?.responses["403"]?.description).toContain("PLATFORM_ROLE_REQUIRED");
  // A route's own words stand before those that are the same everywhere.
  const state = document.paths["/api/nodes"]?.["get"]?.parameters?.find(({ name }) => name === "state");
  expect(state?.description ?? state?.schema.description).toContain("`removed`");
  const headers = document.paths["/api/tasks/{task}/events"]?.["get"]?.parameters?.map(({ name }) => name);
  expect(headers).toContain("Last-Event-ID");
  expect(drain?.parameters?.map(({ name }) => name)).toContain("x-csrf-token");
});

test("no body has room for a member that is not declared", () => {
  const roomy = routes.filter(({ known }) => {
    const body = known.request?.body;
    const example = typeof known.request?.example === "object" ? known.request.example : {};
    const issues = body?.safeParse({ ...example, nobodyDeclaredThis: 1 }).error?.issues;
    return body !== undefined && !JSON.stringify(issues ?? []).includes("nobodyDeclaredThis");
  });
  expect(roomy.map(({ name }) => name)).toEqual([]);
});

describe("negative control: the walk finds", () => {
  const ok = z.object({ hostnames: z.array(z.string()) });

  /** Walks the one route that `register` adds. */
  async function walk(register: (routes: RouteTable) => void): Promise<string[]> {
    const { app, routes: careless } = buildTestApp(db, { register });
    const [only] = careless.list();
    if (only === undefined) throw new Error("no route");
    return await faultsOfRoute(only, app, world);
  }
  const hostnames = (rows: { hostname: string }[]) => ({
    status: 200 as const,
    body: { hostnames: rows.map((row) => row.hostname) },
  });

  test("a route that asks nobody who he is", async () => {
    const faults = await walk((table) =>
      table.add({
        ...base("/api/open"),
        access: { session: true },
        handler: async () => ({ status: 200, body: { hostnames: [] } }),
      }),
    );
    expect(faults).toEqual([]);
    const { app } = buildTestApp(db, {
      register: (table) =>
        table.add({
          ...base("/api/open"),
          access: "public",
          handler: async () => ({ status: 200, body: { hostnames: [] } }),
        }),
    });
    const claimed = {
      ...base("/api/open"),
      access: { session: true } as const,
      handler: async () => ({ status: 200 }),
    };
    expect(await faultsOfRoute(claimed, app, world)).toEqual(
      expect.arrayContaining([
        expect.stringContaining("with no credential: 200"),
        expect.stringContaining("with an API token: 200"),
      ]),
    );
  });

  test("a route for operators that asks nothing of an API token", async () => {
    const { app } = buildTestApp(db, {
      register: (table) =>
        table.add({
          ...base("/api/drained"),
          method: "post",
          access: "public",
          handler: async () => ({ status: 200, body: { hostnames: [] } }),
        }),
    });
    const claimed = {
      ...base("/api/drained"),
      method: "post" as const,
      access: { platform: "OPERATOR" } as const,
      handler: async () => ({ status: 200 }),
    };
    expect(await faultsOfRoute(claimed, app, world)).toContainEqual(
      expect.stringContaining("with a token of the role without WRITE: 200"),
    );
  });

  test("a route that reads a foreign pod with the owner's login", async () => {
    const faults = await walk((table) =>
      route(table, {
        method: "get",
        path: "/api/cloud-pods/:pod/leak",
        summary: "leaks",
        tags: [],
        access: { scope: "READ" },
        responses: { 200: ok },
        handler: async ({ params }, ctx) =>
          hostnames(
            await ctx.system.query(
              sql`SELECT hostname FROM cloud_pods WHERE id::text = ${params.pod} OR vmid::text = ${params.pod}`,
            ),
          ),
      }),
    );
    expect(faults).toEqual(
      expect.arrayContaining([
        expect.stringContaining("with another tenant's ids"),
        expect.stringContaining("it shows victims-pod"),
      ]),
    );
  });

  test("a list that forgets the tenant, although the tenants' login would have saved it", async () => {
    const list = (login: "system" | "tenant") => (table: RouteTable) =>
      route(table, {
        method: "get",
        path: "/api/leaks",
        summary: "leaks",
        tags: [],
        access: { scope: "READ" },
        responses: { 200: ok },
        async handler(_request, ctx) {
          const all = sql`SELECT hostname FROM cloud_pods`;
          return hostnames(
            login === "system" ? await ctx.system.query(all) : await ctx.inTenant((tx) => tx.query(all)),
          );
        },
      });
    expect(await walk(list("system"))).toEqual(
      expect.arrayContaining([expect.stringContaining("it shows victims-pod")]),
    );
    expect(await walk(list("tenant"))).toEqual([]);
  });

  test("a route that says it did not find it, and changed it", async () => {
    const faults = await walk((table) =>
      route(table, {
        method: "post",
        path: "/api/cloud-pods/:pod/spoil",
        summary: "spoils",
        tags: [],
        access: { scope: "WRITE" },
        responses: { 404: ok },
        async handler({ params }, ctx) {
          await ctx.system.execute(
            sql`UPDATE cloud_pods SET name = 'spoiled ' || clock_timestamp() WHERE id::text = ${params.pod}`,
          );
          return { status: 404, body: { hostnames: [] } };
        },
      }),
    );
    expect(faults).toEqual(["it changed something of another tenant"]);
  });

  test.each([
    ["a parameter of which no foreign id is known", "/api/unknown/:unknown", {}, "no ids of another tenant are known"],
    [
      "a body without an example",
      "/api/body",
      { request: { body: z.object({ a: z.string() }) } },
      "its body has no example",
    ],
  ])("%s", async (_, path, extra, fault) => {
    const faults = await walk((table) =>
      table.add({
        ...base(path),
        ...extra,
        access: { scope: "READ" },
        handler: async () => ({ status: 200, body: { hostnames: [] } }),
      }),
    );
    expect(faults).toEqual([expect.stringContaining(fault)]);
  });

  function base(path: string) {
    return { method: "get" as const, path, summary: "careless", tags: [], responses: { 200: ok } };
  }
});
