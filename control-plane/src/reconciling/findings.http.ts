import { findingKinds } from "@cloudpods/shared/finding-kinds";
import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { findNodeId } from "../nodes/find-node.ts";
import type { PodHints } from "../pods/pod-hints.ts";
import type { Hints } from "../platform/hints.ts";
import { findingStates, remedies } from "./finding.ts";
import { listFindings } from "./list-findings.ts";
import { resolveFinding } from "./resolve-finding.ts";

const findingView = z
  .object({
    id: uuid,
    nodeId: uuid,
    node: z.string(),
    vmid: z.number().int(),
    podId: uuid.nullable(),
    tenantId: uuid.nullable(),
    kind: z.enum(findingKinds),
    subject: z.string(),
    evidence: z
      .record(z.string(), z.unknown())
      .openapi({ description: "What the host said and what is wanted.", example: { seen: { cores: 4 } } }),
    offered: z.array(z.enum(remedies)).openapi({ description: "What may be decided; `adopt` is a route of its own." }),
    state: z.enum(findingStates),
    firstSeenAt: timestamp,
    lastSeenAt: timestamp,
    sightings: z.number().int().openapi({ description: "In how many inventories." }),
    action: z.string().nullable().openapi({ description: "What was done last, by itself or on request." }),
    actionBy: z.string().nullable(),
    actedAt: timestamp.nullable(),
    attempts: z.number().int(),
    actionState: z.string().nullable(),
    actionError: z.string().nullable(),
    taskId: uuid.nullable(),
    resolvedAt: timestamp.nullable(),
    resolvedBy: z.string().nullable(),
    resolution: z.string().nullable(),
    reason: z.string().nullable(),
  })
  .openapi("Finding");

const operator = { platform: "OPERATOR" } as const;
const tags = ["nodes"];

/** What hosts have and should not have, or the other way round, and what to do about it. */
export function registerFindingRoutes(
  routes: RouteTable,
  { hints, pods }: { readonly hints: Hints; readonly pods: PodHints },
): void {
  route(routes, {
    method: "get",
    path: "/api/nodes/findings",
    summary: "What is not as it should be on hosts, newest first",
    tags,
    access: operator,
    request: {
      query: listQuery.extend({
        node: z.string().max(255).optional(),
        kind: z.enum(findingKinds).optional(),
        state: z.enum(findingStates).optional().openapi({ description: "Absent: open." }),
      }),
    },
    responses: { 200: listOf(findingView) },
    async handler({ query }, { system }) {
      const rows = await listFindings(system, {
        nodeId: query.node === undefined ? undefined : await findNodeId(system, query.node),
        kind: query.kind,
        state: query.state,
        limit: query.limit + 1,
        beforeId: decodeCursor(query.cursor, 1)?.[0],
      });
      return { status: 200, body: toIdPage(rows, query.limit, (row) => row) };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/nodes/findings/:finding/resolve",
    summary: "Decide about a finding: only what it offers, and only while the host still shows it",
    tags,
    access: operator,
    idempotent: true,
    request: {
      body: z.strictObject({
        action: z.enum(["accept", "repair", "remove", "dismiss"]).openapi({
          description:
            "`accept`: the pod becomes as its host shows it. One that was given up with its host (`orphan`) is that host's again, with its id, tenant, plan and data: it needs its quota as an order does, room where none was held for it, and its address; `QUOTA_EXCEEDED`, `BUDGET_EXHAUSTED`, `PLAN_LIMIT_REACHED`, `NOT_PRICED`, `NO_CAPACITY`, `STORAGE_UNKNOWN`, `ADDRESS_CONFLICT`, `MAC_CONFLICT`, `COPY_ELSEWHERE` and `NODE_NOT_ONLINE` say what stands against it.",
        }),
        reason: z.string().min(1).max(500),
      }),
      example: { action: "dismiss", reason: "belongs to the backup team" },
    },
    responses: { 200: findingView },
    async handler({ params, body }, ctx) {
      const { finding, task } = await ctx.inSystem((tx) =>
        resolveFinding(tx, params.finding, { ...body, actor: ctx.actor, requestId: ctx.requestId, now: ctx.now }),
      );
      ctx.afterCommit(() => {
        if (task === undefined) hints.send("node_commands", finding.nodeId);
        else pods.workQueued(task.id, finding.nodeId);
      });
      return { status: 200, body: finding };
    },
  });
}
