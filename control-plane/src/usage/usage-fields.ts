import { z } from "@hono/zod-openapi";
import type { Money } from "@cloudpods/shared/money";

/** A month of usage, always UTC. */
export const yearMonth = z
  .string()
  .regex(/^20\d\d-(0[1-9]|1[0-2])$/, "must be a month such as 2026-01")
  .openapi({ example: "2026-01", description: "UTC" });

/** Said with every answer about usage: its hours, days and months are those of UTC. */
export const timezone = z.literal("UTC");

/** An amount in US dollars rounded to cents; absent in other currencies. */
export const usdText = z.string().optional().openapi({ example: "34.20" });

/** A member `…Usd` with the payable amount when the currency is USD, else nothing. */
export function usdOf<Name extends `${string}Usd`>(name: Name, amount: Money): { [N in Name]?: string } {
  // One computed name is all that TypeScript does not see by itself.
  return (amount.currency === "USD" ? { [name]: amount.rounded().toString() } : {}) as { [N in Name]?: string };
}
