import { z } from "@hono/zod-openapi";
import type { Money } from "@cloudpods/shared/money";

/** An instant; a Date in the program, RFC 3339 in UTC on the wire. */
export const timestamp = z.date().openapi({ type: "string", format: "date-time", example: "2026-01-31T12:00:00.000Z" });

/** A 64-bit counter; a bigint in the program, a decimal string on the wire because JSON numbers end at 2^53. */
export const counter = z.bigint().openapi({ type: "string", pattern: "^-?[0-9]+$", example: "1048576" });

/** An id that the control plane made. */
export const uuid = z.uuid().openapi({ example: "019a0000-0000-7000-8000-000000000001" });

/** An exact amount: a decimal string, because JSON numbers are binary. `Money` of the program fits after `shownMoney`. */
export const money = z.object({
  amount: z.string().openapi({ example: "34.20" }),
  currency: z.string().openapi({ example: "USD", description: "ISO 4217" }),
});

/** A `Money` as `money` has it, to the amount's last place. */
export function shownMoney(amount: Money): z.infer<typeof money> {
  return { amount: amount.toString(), currency: amount.currency };
}

/** Something in the query that is off unless it says `true`. */
export function queryFlag(description: string) {
  return z
    .enum(["true", "false"])
    .optional()
    .transform((text) => text === "true")
    .openapi({ type: "string", enum: ["true", "false"], description });
}

/** `?dryRun=true`: nothing is written, the answer is the plan. */
export const dryRun = queryFlag("Answer what would happen and change nothing.");

/** Schema of an answer without a body (204). */
export const noBody = z.undefined();
