import { z } from "@hono/zod-openapi";

/** What a host would be told. */
export const commandView = z.object({
  node: z.string(),
  command: z.string().openapi({ description: "Its name in the protocol." }),
  lines: z.array(z.string()).readonly().nullable().openapi({
    description:
      "What the host would run, as the host itself says; null with a reason where that is not known. What is given only when it is really done is shown as <id>, <pod>, <vmid>, <mac> and <time>.",
  }),
  reason: z.string().nullable(),
});
