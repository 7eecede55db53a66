import { z } from "@hono/zod-openapi";
import { route } from "../http/route.ts";
import type { RouteTable } from "../http/route-table.ts";
import { etagOf } from "../http/version-check.ts";
import { comparePlans } from "./compare-plans.ts";
import { listRegions, listTemplates } from "./fleet-offers.ts";
import { planView } from "./plan-view.ts";
import { listPlans, resolvePlan } from "./resolve-plan.ts";

const comparison = z.object({
  plans: z.array(planView.pick({ code: true, name: true, family: true })).readonly(),
  rows: z
    .array(
      z.object({
        feature: z.string(),
        name: z.string(),
        unit: z.string().nullable(),
        values: z.array(z.union([z.string(), z.number(), z.boolean(), z.null()])).readonly(),
      }),
    )
    .readonly(),
});

const template = z.object({
  template: z.string().openapi({ example: "ct:9000" }),
  regions: z.array(z.string()),
  nodes: z.number().int(),
});

const region = z.object({ region: z.string(), acceptsOrders: z.boolean() });

const tags = ["plans"];

/** Adds what a visitor may know before he has an account: plans, regions and templates. */
export function registerPlanRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/plans",
    summary: "Plans that can be ordered, with their prices",
    tags,
    access: "public",
    request: { query: z.object({ family: z.enum(["shared", "managed"]).optional() }) },
    responses: { 200: z.object({ data: z.array(planView).readonly() }) },
    handler: async ({ query }, { system }) => {
      const plans = await listPlans(system);
      return {
        status: 200,
        body: { data: plans.filter((plan) => query.family === undefined || plan.family === query.family) },
      };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/plans/:code",
    summary: "One plan, by its code or unambiguous short form",
    tags,
    access: "public",
    responses: { 200: planView },
    handler: async ({ params }, { system }) => {
      const plan = await resolvePlan(system, params.code);
      return { status: 200, headers: { etag: etagOf(plan.version) }, body: plan };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/compare",
    summary: "Plans compared: features as rows, plans as columns",
    tags,
    access: "public",
    responses: { 200: comparison },
    handler: async (_, { system }) => {
      return { status: 200, body: comparePlans(await listPlans(system)) };
    },
  });
  registerFleetOffers(routes);
}

function registerFleetOffers(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/templates",
    summary: "Templates that nodes have, and in which regions",
    tags,
    access: "public",
    responses: { 200: z.object({ data: z.array(template) }) },
    handler: async (_, { system }) => {
      return { status: 200, body: { data: await listTemplates(system) } };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/regions",
    summary: "Regions with nodes, and whether pods can be ordered there now",
    tags,
    access: "public",
    responses: { 200: z.object({ data: z.array(region) }) },
    handler: async (_, { system }) => {
      return { status: 200, body: { data: await listRegions(system) } };
    },
  });
}
