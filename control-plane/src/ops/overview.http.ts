import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { assembleOverview } from "./assemble-overview.ts";
import { overviewView } from "./overview-views.ts";
import { readOverview } from "./read-overview.ts";

/** Adds the overview of the platform. */
export function registerOverviewRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/ops/platform-overview",
    summary: "Hosts, queues, work, metering, security and capacity at one instant",
    tags: ["operations"],
    access: { platform: "OPERATOR" },
    responses: { 200: overviewView },
    handler: async (_, { system }) => ({ status: 200, body: assembleOverview(await readOverview(system)) }),
  });
}
