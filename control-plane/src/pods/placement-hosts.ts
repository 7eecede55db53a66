import { z } from "@hono/zod-openapi";
import type { TenantContext } from "../http/context.ts";
import type { PlacementVerdict } from "../scheduling/verdict.ts";

/** What a verdict says of each host. */
export const hostsView = z
  .object({ candidates: z.array(z.unknown()).readonly(), rejected: z.array(z.unknown()).readonly() })
  .nullable()
  .openapi({ description: "Points and reasons of each host; for operators." });

/** The hosts of a verdict for whoever may see them; null for customers. */
export function hostsFor(ctx: TenantContext, verdict: Partial<PlacementVerdict>): z.input<typeof hostsView> {
  if (ctx.actor.platformRole === "USER") return null;
  return { candidates: verdict.candidates ?? [], rejected: verdict.rejected ?? [] };
}
