import { z } from "@hono/zod-openapi";
import { uuid } from "../http/fields.ts";
import { antiAffinity, filters } from "./filters.ts";
import { scores, tenantSpread } from "./scores.ts";

/** Labels that a node must have or that pods carry. */
export const labelsField = z
  .record(z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9_./-]{0,62}$/), z.string().max(255))
  .refine((labels) => Object.keys(labels).length <= 32, "at most 32 labels")
  .openapi({ example: { rack: "a3" } });

// Object.keys forgets that the keys are the names.
const filter = z.enum([...(Object.keys(filters) as (keyof typeof filters)[]), antiAffinity.name]);
const score = z.enum([...(Object.keys(scores) as (keyof typeof scores)[]), tenantSpread.name]);

const candidate = z.object({
  nodeId: uuid,
  node: z.string(),
  storage: z.string(),
  points: z.number().int(),
  scores: z.record(score, z.number().int()),
});

/** Schema of a `PlacementVerdict`. */
export const verdictField = z
  .object({
    summary: z.string().openapi({ example: "0 of 3 nodes: 1 cordoned, 2 short of memory by 512 MB" }),
    at: z.string().openapi({ format: "date-time" }),
    chosen: candidate.nullable(),
    nodes: z.number().int(),
    fitting: z.number().int(),
    reasons: z.array(z.object({ filter, nodes: z.number().int() })).readonly(),
    candidates: z.array(candidate).readonly(),
    rejected: z.array(z.object({ nodeId: uuid, node: z.string(), filter, reason: z.string() })).readonly(),
  })
  .openapi("PlacementVerdict");
