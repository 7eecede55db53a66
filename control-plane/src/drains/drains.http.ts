import { DomainError } from "@cloudpods/shared/errors";
import { z } from "@hono/zod-openapi";
import { drainStates, isDrainOver } from "@cloudpods/shared/drain-lifecycle";
import { setTimeout as sleep } from "node:timers/promises";
import type { UserContext } from "../http/context.ts";
import { eventStream, type ServerSentEvent, type StreamPosition } from "../http/event-stream.ts";
import { dryRun } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { toPlannedMoveView } from "../moves/move-views.ts";
import { askHosts } from "../nodes/ask-hosts.ts";
import { findNodeId } from "../nodes/find-node.ts";
import type { Queryable, Transaction } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { sql } from "../platform/sql.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { describeDrain, drainDetail, drainPlanView, drainView } from "./drain-view.ts";
import { selectDrains, type Drain } from "./drain.ts";
import { planDrain, planEvacuation, type HostPlan } from "./plan-drain.ts";
import {
  cancelDrain,
  noDrain,
  requireDrainable,
  requireEvacuable,
  startDrain,
  startEvacuation,
} from "./start-drain.ts";

const operator = { platform: "OPERATOR" } as const;
const tags = ["nodes"];
/** How often a stream looks whether anything has changed. */
const lookEveryMs = 1_000;

const drainBody = z.strictObject({
  reason: z.string().min(1).max(500),
  deadlineSeconds: z.number().int().min(60).max(604_800).default(14_400),
  maxParallel: z.number().int().min(1).max(16).default(2),
  onNoCapacity: z.enum(["fail", "partial"]).default("fail").openapi({
    description:
      "`fail`: nothing moves unless every pod has a place elsewhere, not even when time is up. `partial`: those that have one move.",
  }),
  onDeadline: z.enum(["leave", "stop-and-restore"]).default("leave").openapi({
    description:
      "When time is up: `leave` what has not begun, or `stop-and-restore` the pods that hold a place that an archive can get to or that sees their disk, by force if need be.",
  }),
  returnHome: z.boolean().default(false).openapi({
    description: "Bring the pods back when the host is open again, as far as it has room for them then.",
  }),
});

const evacuateBody = z.strictObject({
  reason: z.string().min(1).max(500),
  confirmFenced: z.literal(true).optional().openapi({
    description:
      "The host is cut off for good: nothing of it runs, and nothing of it will reach what its pods write to. Only a dry run does without. Once anything is heard of the host the evacuation ends as cancelled, and it keeps what has not changed hands.",
  }),
  onNoBackup: z.enum(["keep", "mark-lost"]).default("keep").openapi({
    description:
      "Of pods that nothing is left of elsewhere (`NO_BACKUP`): `keep` them in case the host returns, or `mark-lost`. What is only out of reach at present (`BACKUP_NOT_REACHABLE`, `DISK_NOT_REACHABLE`) or was found damaged just now (`BACKUP_DAMAGED`) keeps its pod in any case: evacuate again when that is settled. A host that comes back with a pod that was marked lost shows it as a finding that can be accepted.",
  }),
  maxParallel: z.number().int().min(1).max(16).default(4),
});

/** What the routes of drains need. */
export interface DrainRouteDeps {
  readonly fleet: FleetView;
  /** For questions to hosts; undefined: none is asked. */
  readonly hints?: Hints;
}

/** Hosts are emptied and given up. */
export function registerDrainRoutes(routes: RouteTable, deps: DrainRouteDeps): void {
  registerStarting(routes, deps);
  registerWatching(routes);
}

function registerStarting(routes: RouteTable, { fleet, hints }: DrainRouteDeps): void {
  route(routes, {
    method: "post",
    path: "/api/nodes/:node/drain",
    summary: "Empty a host: cordon it, claim a place for each pod, move them",
    tags,
    access: operator,
    idempotent: true,
    request: { query: z.object({ dryRun }), body: drainBody, example: { reason: "memory is replaced" } },
    responses: { 202: drainDetail, 200: drainPlanView },
    async handler({ params, query, body }, ctx) {
      const nodeId = await findNodeId(ctx.system, params.node);
      if (query.dryRun) {
        const plan = await ctx.inSystem(async (tx) => {
          await requireDrainable(tx, nodeId);
          return await planDrain(tx, fleet, nodeId, body.maxParallel);
        });
        return { status: 200, body: await toDrainPlan({ db: ctx.system, hints }, plan) };
      }
      return await begun(ctx, params.node, (tx) => startDrain(tx, nodeId, body, byOf(ctx)));
    },
  });
  route(routes, {
    method: "post",
    path: "/api/nodes/:node/evacuate",
    summary: "Give up a host that is gone and bring its pods back elsewhere",
    tags,
    access: operator,
    idempotent: true,
    request: {
      query: z.object({ dryRun }),
      body: evacuateBody,
      example: { reason: "the host burnt", confirmFenced: true },
    },
    responses: { 202: drainDetail, 200: drainPlanView },
    async handler({ params, query, body }, ctx) {
      const nodeId = await findNodeId(ctx.system, params.node);
      if (query.dryRun) {
        const plan = await ctx.inSystem(async (tx) => {
          await requireEvacuable(tx, nodeId);
          return await planEvacuation(tx, fleet, nodeId, body.maxParallel, ctx.now);
        });
        return { status: 200, body: await toDrainPlan({ db: ctx.system, hints }, plan) };
      }
      if (body.confirmFenced !== true)
        throw new DomainError(
          "invalid",
          "FENCING_NOT_CONFIRMED",
          "Confirm that the host is cut off for good (confirmFenced): pods that still run there would run twice.",
          { errors: [{ pointer: "/confirmFenced", detail: "must be true" }] },
        );
      return await begun(ctx, params.node, (tx) => startEvacuation(tx, nodeId, body, byOf(ctx)));
    },
  });
}

/** A plan with what the hosts themselves say to it. */
async function toDrainPlan(doors: Parameters<typeof askHosts>[0], { node, moves, commands, totalMs }: HostPlan) {
  const told = await askHosts(doors, commands);
  const movable = moves.filter(({ target }) => target !== null).length;
  const views = moves.map((move, index) => toPlannedMoveView(move, told[index] ?? []));
  return { dryRun: true as const, node, moves: views, movable, blocked: moves.length - movable, totalMs };
}

function byOf(ctx: UserContext) {
  return { actor: ctx.actor, requestId: ctx.requestId };
}

async function begun(ctx: UserContext, node: string, start: (tx: Transaction) => Promise<Drain>) {
  return {
    status: 202 as const,
    headers: { location: `/api/nodes/${node}/drain` },
    body: await ctx.inSystem(async (tx) => await describeDrain(tx, await start(tx), ctx.now)),
  };
}

function registerWatching(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/nodes/:node/drain",
    summary: "The last drain or evacuation of a host, with the progress of each pod",
    tags,
    access: operator,
    responses: { 200: drainDetail },
    async handler({ params }, ctx) {
      const drain = await lastDrain(ctx.system, await findNodeId(ctx.system, params.node));
      return { status: 200, body: await describeDrain(ctx.system, drain, ctx.now) };
    },
  });
  route(routes, {
    method: "delete",
    path: "/api/nodes/:node/drain",
    summary: "Cancel a drain: nothing more begins, what has begun ends; the host stays cordoned",
    tags,
    access: operator,
    responses: { 202: drainDetail },
    async handler({ params }, ctx) {
      const nodeId = await findNodeId(ctx.system, params.node);
      return await begun(ctx, params.node, (tx) => cancelDrain(tx, nodeId, byOf(ctx)));
    },
  });
  eventStream(routes, {
    path: "/api/nodes/:node/drain/events",
    summary: "Progress of a drain as it happens, to its end",
    tags,
    access: operator,
    async open({ params }, ctx) {
      const { id } = await lastDrain(ctx.system, await findNodeId(ctx.system, params.node));
      return (position) => followDrain(ctx.system, id, position);
    },
  });
  route(routes, {
    method: "get",
    path: "/api/nodes/drains",
    summary: "Drains and evacuations, newest first",
    tags,
    access: operator,
    request: { query: listQuery.extend({ state: z.enum(drainStates).optional() }) },
    responses: { 200: listOf(drainView) },
    async handler({ query }, { system }) {
      const before = decodeCursor(query.cursor, 1)?.[0] ?? null;
      const rows = await system.query<Drain>(sql`${selectDrains}
        WHERE (${query.state ?? null}::text IS NULL OR d.state = ${query.state ?? null}) AND (${before}::uuid IS NULL OR d.id < ${before}::uuid)
        ORDER BY d.id DESC LIMIT ${query.limit + 1}`);
      return {
        status: 200,
        body: toPage(
          rows,
          query.limit,
          (row) => [row.id],
          (row) => row,
        ),
      };
    },
  });
}

async function lastDrain(db: Queryable, nodeId: string): Promise<Drain> {
  const [drain] = await db.query<Drain>(sql`${selectDrains} WHERE d.node_id = ${nodeId} ORDER BY d.id DESC LIMIT 1`);
  if (drain === undefined) throw noDrain("The node was never drained or evacuated.");
  return drain;
}

/** The whole drain whenever anything of it has changed; holds no connection while it waits. */
async function* followDrain(db: Queryable, id: string, { signal }: StreamPosition): AsyncGenerator<ServerSentEvent> {
  let last = "";
  while (!signal.aborted) {
    const [drain] = await db.query<Drain>(sql`${selectDrains} WHERE d.id = ${id}`);
    if (drain === undefined) return;
    const detail = await describeDrain(db, drain, new Date());
    // What has only grown older is no news.
    const text = JSON.stringify({ ...detail, pods: detail.pods.map((pod) => ({ ...pod, archiveAgeSeconds: null })) });
    if (text !== last) yield { event: "drain", data: detail };
    last = text;
    if (isDrainOver(drain.state)) return;
    await sleep(lookEveryMs, undefined, { signal }).catch(() => {});
  }
}
