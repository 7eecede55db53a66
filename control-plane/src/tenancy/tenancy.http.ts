import type { RouteTable } from "../http/route-table.ts";
import { registerMemberRoutes } from "./members.http.ts";
import { registerTenantRoutes } from "./tenants.http.ts";
import { registerUserRoutes } from "./users.http.ts";

/** Tenants and users (for administrators), members (for the tenant's own). */
export function registerTenancyRoutes(routes: RouteTable): void {
  registerTenantRoutes(routes);
  registerUserRoutes(routes);
  registerMemberRoutes(routes);
}
