import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import { route } from "../http/route.ts";
import type { RouteTable } from "../http/route-table.ts";
import { listPlans, resolvePlan } from "../plans/resolve-plan.ts";
import type { Database } from "../platform/database.ts";
import type { FleetView } from "./fleet-view.ts";
import { recentFailures } from "./recent-failures.ts";
import { countFitting } from "./headroom.ts";
import { labelsField, verdictField } from "./placement-fields.ts";
import type { PlacementRequest } from "./placement-request.ts";
import { previewPlacement } from "./place-pod.ts";

const size = z.strictObject({
  cores: z.number().int().min(1).max(512),
  memoryMb: z.number().int().min(16).max(4_194_304),
  diskGb: z.number().int().min(1).max(65_536),
});

const simulation = z
  .object({
    planCode: z.string().max(64).optional(),
    resources: size.optional(),
    tenantId: uuid.optional().openapi({ description: "Take into account where this tenant has pods." }),
    region: z.string().max(63).optional(),
    template: z.string().max(255).optional(),
    storage: z.string().max(100).optional(),
    nodeLabels: labelsField.optional(),
    capabilities: z.array(z.string().max(100)).max(32).optional(),
    antiAffinity: labelsField
      .optional()
      .openapi({ description: "Not beside pods of the tenant that have these labels." }),
  })
  .strict()
  .refine(
    (body) => (body.planCode === undefined) !== (body.resources === undefined),
    "name a planCode or resources, not both",
  );

const headroom = z.object({
  at: timestamp,
  regions: z.array(
    z.object({
      region: z.string(),
      nodes: z.number().int().openapi({ description: "Hosts that take orders now." }),
      plans: z.array(z.object({ planCode: z.string(), pods: z.number().int() })),
    }),
  ),
  failures: z
    .array(
      z.object({
        region: z.string().nullable().openapi({ description: "Null: any region would have done." }),
        planCode: z.string().nullable().openapi({ description: "Null: the size is no plan's." }),
        cores: z.number().int(),
        memoryMb: z.number().int(),
        diskGb: z.number().int(),
        orders: z.number().int(),
        lastAt: timestamp,
        summary: z.string().openapi({ description: "Why the last of them found no place." }),
      }),
    )
    .openapi({ description: "Orders of the last seven days that found no place, the most frequent first." }),
});

/** How many nodes a simulation names: operators want to see them all. */
const shown = { candidatesMax: 1_000, rejectedMax: 1_000 };

const tags = ["scheduler"];

/** Adds the operators' questions to the scheduler; neither changes anything. */
export function registerSchedulerRoutes(routes: RouteTable, deps: { readonly fleet: FleetView }): void {
  route(routes, {
    method: "post",
    path: "/api/scheduler/simulate",
    summary: "Where a pod would be placed now, with the reasons for every node",
    tags,
    access: { platform: "OPERATOR" },
    request: { body: simulation, example: { resources: { cores: 2, memoryMb: 2_048, diskGb: 20 }, region: "eu" } },
    responses: { 200: verdictField },
    handler: async ({ body }, { system }) => {
      const request = await requestOf(system, body);
      const { verdict } = await previewPlacement(system, deps.fleet, body.tenantId, request, shown);
      return { status: 200, body: verdict };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/scheduler/headroom",
    summary: "How many more pods of each plan fit, by region, and which orders found no place",
    tags,
    access: { platform: "OPERATOR" },
    responses: { 200: headroom },
    handler: async (_, { system }) => ({ status: 200, body: await readHeadroom(system, deps.fleet) }),
  });
}

async function requestOf(db: Database, body: z.output<typeof simulation>): Promise<PlacementRequest> {
  const { planCode, resources, tenantId: _, ...wishes } = body;
  const { cores, memoryMb, diskGb } = resources ?? (await resolvePlan(db, planCode ?? ""));
  return { ...wishes, cores, memoryMb, diskGb };
}

async function readHeadroom(db: Database, fleet: FleetView): Promise<z.input<typeof headroom>> {
  const [plans, snapshot, failures] = await Promise.all([listPlans(db), fleet.fresh(db), recentFailures(db)]);
  const hosts = snapshot.nodes.filter((node) => node.role === "hypervisor");
  const regions = [...Map.groupBy(hosts, (node) => node.region)].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return {
    at: snapshot.readAt,
    regions: regions.map(([region, nodes]) => {
      const fitting = countFitting(plans, { readAt: snapshot.readAt, nodes });
      return {
        region,
        nodes: nodes.filter((node) => node.schedulable && node.state === "online").length,
        plans: plans.map(({ code }, index) => ({ planCode: code, pods: fitting[index] ?? 0 })),
      };
    }),
    failures: failures.map((failure) => ({
      ...failure,
      planCode:
        plans.find(
          ({ cores, memoryMb, diskGb }) =>
            cores === failure.cores && memoryMb === failure.memoryMb && diskGb === failure.diskGb,
        )?.code ?? null,
    })),
  };
}
