import { z } from "@hono/zod-openapi";

const price = z.object({
  amount: z.string().openapi({ example: "1.49" }),
  currency: z.string().openapi({ example: "USD" }),
});

const limit = z.number().int().nullable().openapi({ description: "null: not limited" });

/** A plan as answers show it. */
export const planView = z
  .object({
    code: z.string().openapi({ example: "CLOUD_POD_STARTER" }),
    name: z.string(),
    family: z.enum(["shared", "managed"]),
    description: z.string(),
    cores: z.number().int(),
    memoryMb: z.number().int(),
    swapMb: z.number().int(),
    diskGb: z.number().int(),
    bandwidthGb: limit,
    overagePolicy: z.enum(["throttle", "charge", "none"]),
    websitesMax: limit,
    emailsMax: limit,
    maxPerTenant: limit,
    requiresVerifiedEmail: z.boolean(),
    features: z.array(z.string()).readonly(),
    version: z.number().int(),
    prices: z.array(price).readonly().openapi({ description: "Per month, one for each currency." }),
  })
  .openapi("Plan");
