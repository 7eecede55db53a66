import { z } from "@hono/zod-openapi";
import type { TenantContext } from "../http/context.ts";
import type { DryRun } from "./dry-run.ts";
import { hostsFor, hostsView } from "./placement-hosts.ts";

/** What an order or a change would come to. */
export const orderViews = {
  quota: z
    .object({
      allowed: z.boolean(),
      message: z.string().optional(),
      details: z.record(z.string(), z.number()).optional(),
    })
    .nullable(),
  placement: z
    .object({
      node: z.string().nullable(),
      summary: z.string(),
      reasons: z.array(z.object({ filter: z.string(), nodes: z.number().int() })),
      hosts: hostsView,
    })
    .nullable(),
  price: z
    .object({ amount: z.string(), currency: z.string(), per: z.literal("month") })
    .nullable()
    .openapi({ description: "Of resources of one's own: when used all month, without traffic." }),
} as const;

/** What would happen, with the host's own command lines. */
export const dryRunView = z
  .object({
    dryRun: z.literal(true),
    ...orderViews,
    commands: z.array(z.string()).nullable().openapi({
      description:
        "What the host would run, as the host itself says; null with a reason when it did not answer. What an order is given only when it is made is shown as <vmid>, <pod> and <mac>.",
    }),
    commandsReason: z.string().nullable(),
    dnsRecords: z.array(z.unknown()),
  })
  .openapi("DryRun");

/** The views of what an order or a change would come to. */
export function presentOrder(
  ctx: TenantContext,
  { quota, placement, price }: Pick<DryRun, "quota" | "placement" | "price">,
) {
  return {
    quota: quota === null ? null : presentQuota(quota),
    placement: placement === null ? null : presentPlacement(ctx, placement),
    price,
  };
}

function presentPlacement(ctx: TenantContext, { node, summary, verdict }: NonNullable<DryRun["placement"]>) {
  return { node, summary, reasons: [...verdict.reasons], hosts: hostsFor(ctx, verdict) };
}

function presentQuota({ allowed, message, details }: NonNullable<DryRun["quota"]>) {
  return {
    allowed,
    ...(message === undefined ? {} : { message }),
    ...(details === undefined ? {} : { details: { ...details } }),
  };
}
