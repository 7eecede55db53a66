import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { deadLetterKinds, listDeadLetters, type DeadLetterPlace } from "./dead-letters.ts";
import { retryDeadLetter, type RetryDeps } from "./retry-dead-letter.ts";

const common = {
  id: uuid,
  deadAt: timestamp.openapi({ description: "When it was put aside." }),
  reason: z.string().nullable(),
  detail: z.string().nullable(),
};

const deadLetterView = z
  .discriminatedUnion("kind", [
    z.object({
      kind: z.literal("notification"),
      ...common,
      tenantId: uuid,
      channel: z.enum(["email", "webhook"]),
      recipient: z.string(),
      occasion: z.string(),
      attempts: z.number().int(),
    }),
    z.object({
      kind: z.literal("telemetry-message"),
      ...common,
      nodeId: uuid.nullable(),
      topic: z.string(),
      payloadBytes: z.number().int(),
    }),
    z.object({
      kind: z.literal("rejected-sample"),
      ...common,
      nodeId: uuid,
      podId: z.string().openapi({ description: "As the host sent it; it may be no pod's." }),
      sample: z.record(z.string(), z.unknown()),
    }),
  ])
  .openapi("DeadLetter");

const retryView = z
  .object({
    kind: z.enum(deadLetterKinds),
    id: uuid,
    outcome: z.enum(["queued", "stored", "duplicate"]).openapi({
      description: "duplicate: what it holds had been stored from another copy, and does not count again.",
    }),
    samples: z
      .object({ stored: z.number().int(), late: z.number().int(), rejected: z.number().int() })
      .optional()
      .openapi({ description: "late: went into figures that were sealed; rejected: put aside again, singly." }),
  })
  .openapi("DeadLetterRetry");

const tags = ["operations"];
const access = { platform: "OPERATOR" } as const;

function placeOf(cursor: string | undefined): DeadLetterPlace | undefined {
  const [atUs, id] = decodeCursor(cursor, 2) ?? [];
  if (atUs === undefined || id === undefined) return undefined;
  if (!/^\d{1,16}$/.test(atUs))
    throw new DomainError("invalid", "CURSOR_INVALID", "The cursor is not one that this list gave out.");
  return { atUs: BigInt(atUs), id };
}

/** What could not be delivered or stored, of every kind; for operators. */
export function registerDeadLetterRoutes(routes: RouteTable, deps: RetryDeps): void {
  route(routes, {
    method: "get",
    path: "/api/ops/dead-letters",
    summary: "Messages and samples that were put aside and wait to be retried, newest first",
    tags,
    access,
    request: { query: listQuery.extend({ kind: z.enum(deadLetterKinds).optional() }) },
    responses: { 200: listOf(deadLetterView) },
    async handler({ query }, { system }) {
      const before = placeOf(query.cursor);
      const rows = await listDeadLetters(system, { kind: query.kind, before, limit: query.limit + 1 });
      return {
        status: 200,
        body: toPage(
          rows,
          query.limit,
          ({ place }) => [String(place.atUs), place.id],
          ({ letter }) => letter,
        ),
      };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/ops/dead-letters/:id/retry",
    summary: "Deliver a message anew, or take in a message or sample again; what is stored counts once",
    tags,
    access,
    responses: { 200: retryView, 202: retryView },
    async handler({ params }, ctx) {
      const retry = await retryDeadLetter(deps, ctx, params.id);
      return { status: retry.outcome === "queued" ? 202 : 200, body: retry };
    },
  });
}
