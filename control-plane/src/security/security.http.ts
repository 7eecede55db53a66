import type { RouteTable } from "../http/route-table.ts";
import { registerAuthRoutes, type AuthRoutesOptions } from "./auth.http.ts";
import { registerTokenRoutes } from "./tokens.http.ts";

/** Everything about who someone is and what he can show for it. */
export function registerSecurityRoutes(routes: RouteTable, options: AuthRoutesOptions): void {
  registerAuthRoutes(routes, options);
  registerTokenRoutes(routes);
}
