import { z } from "@hono/zod-openapi";
import { expect, test } from "vitest";
import { createRouteTable, parameterNames, parameterPattern, type Route } from "./route-table.ts";

function routeAt(path: string, method: Route["method"] = "get"): Route {
  return {
    method,
    path,
    summary: path,
    tags: [],
    access: "public",
    responses: { 200: z.string() },
    handler: async () => ({ status: 200, body: path }),
  };
}

test("literal segments are tried before parameters, whoever came first", () => {
  const routes = createRouteTable();
  for (const path of ["/a/:pod", "/a/:pod/b", "/a/plans", "/:any/b"]) routes.add(routeAt(path));
  expect(routes.list().map((route) => route.path)).toEqual(["/a/plans", "/a/:pod", "/a/:pod/b", "/:any/b"]);
});

test("a route that could never be reached is refused", () => {
  const routes = createRouteTable();
  routes.add(routeAt("/a/:pod"));
  routes.add(routeAt("/a/:pod", "post"));
  expect(() => routes.add(routeAt("/a/:id"))).toThrow("exists already");
});

test("names and patterns of parameters", () => {
  expect(parameterNames("/a/:pod/b/:id")).toEqual(["pod", "id"]);
  const pod = new RegExp(`^(?:${parameterPattern("pod")})$`);
  expect(["12", "019a0000-0000-7000-8000-000000000001"].every((text) => pod.test(text))).toBe(true);
  expect(["plans", "12x", "1234567890", "019a0000"].some((text) => pod.test(text))).toBe(false);
  expect(parameterPattern("code")).toBeUndefined();
});
