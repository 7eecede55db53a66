import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import type { Money } from "@cloudpods/shared/money";
import { money, shownMoney } from "../http/fields.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { pricingInForce, type Pricing } from "../rating/pricing.ts";
import { estimateMonthlyCost } from "../rating/rules.ts";
import { usdOf, usdText } from "./usage-fields.ts";

const cores = z.number().int().min(1).max(1_024);
const size = {
  memoryMb: z.number().int().min(16).max(16_777_216),
  diskGb: z.number().int().min(1).max(1_000_000),
  estimatedNetworkOutGb: z
    .number()
    .min(0)
    .max(1_000_000)
    .default(10)
    .openapi({ description: "Per month; 1 GB = 2^30 bytes." }),
};

/** A pod that somebody thinks about. */
export const estimateWish = z
  .union([z.strictObject({ vcpus: cores, ...size }), z.strictObject({ cores, ...size })])
  .openapi("EstimateWish");

const amount = z.string().openapi({ example: "14.60" });

/** What it would cost, as `POST /usage/estimate` shows it. */
export const estimateView = z
  .object({
    breakdown: z.object({ cpuCost: amount, memoryCost: amount, diskCost: amount, networkCost: amount }),
    totalMonthly: money,
    totalMonthlyUsd: usdText,
    hoursPerMonth: z.literal(730),
    pricing: z.string().openapi({ example: "standard", description: "The price list." }),
  })
  .openapi("Estimate");

/** The price list of a tenant. @throws DomainError `not-found` PRICING_NOT_FOUND */
export async function pricingOf(tx: Queryable, tenantId: string, at: Date): Promise<Pricing> {
  const [tenant] = await tx.query<{ currency: string; name: string | null }>(
    sql`SELECT currency, pricing_name AS name FROM tenants WHERE id = ${tenantId}`,
  );
  const pricing = tenant === undefined ? undefined : await pricingInForce(tx, tenant, at);
  if (pricing === undefined)
    throw new DomainError(
      "not-found",
      "PRICING_NOT_FOUND",
      "There is no pricing in the tenant's currency at the moment.",
    );
  return pricing;
}

/** The parts are payable amounts and sum to the total. A month has 730 hours, the mean of a year's. */
export function estimate(pricing: Pricing, wish: z.output<typeof estimateWish>): z.infer<typeof estimateView> {
  const { total, ...parts } = estimateMonthlyCost(pricing, wish);
  const text = (part: Money): string => part.toString();
  return {
    breakdown: {
      cpuCost: text(parts.cpuCost),
      memoryCost: text(parts.memoryCost),
      diskCost: text(parts.diskCost),
      networkCost: text(parts.networkCost),
    },
    totalMonthly: shownMoney(total),
    ...usdOf("totalMonthlyUsd", total),
    hoursPerMonth: 730,
    pricing: pricing.name,
  };
}
