import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { decodeCursor, listOf, listQuery, toIdPage, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { checkVersion, etagOf } from "../http/version-check.ts";
import type { UserContext } from "../http/context.ts";
import type { Hints } from "../platform/hints.ts";
import type { Transaction } from "../platform/database.ts";
import { changeNode, cordonNode, lockNode, uncordonNode, type NodeChangeBy } from "./change-node.ts";
import { registerEnrolmentRoutes } from "./enrolment.http.ts";
import { findNodeId } from "./find-node.ts";
import type { IssuingDeps } from "./node-certificates.ts";
import { listNodeEvents } from "./node-events.ts";
import {
  nodeChanges,
  nodeDetail,
  nodeEvent,
  nodeSample,
  nodeView,
  removalView,
  unmanagedContainer,
} from "./node-schemas.ts";
import { nodeStates } from "./node-state.ts";
import { listNodes, listUnmanaged, readNode, readNodeContents, readNodeSamples } from "./node-view.ts";
import { removeNode } from "./remove-node.ts";

/** What the routes of nodes need besides their contexts. */
export interface NodeRouteDeps extends IssuingDeps {
  readonly hints: Hints;
}

const operator = { platform: "OPERATOR" } as const;
const tags = ["nodes"];

/** Adds everything about hosts: joining, looking, changing, removing. */
export function registerNodeRoutes(routes: RouteTable, deps: NodeRouteDeps): void {
  registerEnrolmentRoutes(routes, deps);
  registerReading(routes);
  registerHistories(routes);
  registerChanging(routes);
  registerRemoving(routes, deps);
}

function registerReading(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/nodes",
    summary: "Hosts by name, with capacity, conditions and storages",
    tags,
    access: operator,
    request: {
      query: listQuery.extend({
        state: z
          .enum(nodeStates)
          .optional()
          .openapi({ description: "Hosts that were removed are listed only when `removed` is asked for." }),
        region: z.string().max(40).optional(),
        role: z.string().max(40).optional(),
      }),
    },
    responses: { 200: listOf(nodeView) },
    handler: async ({ query }, { system }) => {
      const [name, id] = decodeCursor(query.cursor, 2) ?? [];
      const after = name === undefined || id === undefined ? undefined : { name, id };
      const rows = await listNodes(system, { ...query, limit: query.limit + 1, after });
      return {
        status: 200,
        body: toPage(
          rows,
          query.limit,
          (row) => [row.name, row.id],
          (row) => row,
        ),
      };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/nodes/:node",
    summary: "One host, with its pods and templates",
    tags,
    access: operator,
    responses: { 200: nodeDetail },
    handler: async ({ params }, { system }) => {
      const nodeId = await findNodeId(system, params.node);
      const [node, contents] = await Promise.all([readNode(system, nodeId), readNodeContents(system, nodeId)]);
      return { status: 200, headers: { etag: etagOf(node.version) }, body: { ...node, ...contents } };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/nodes/unmanaged",
    summary: "Containers on hosts that no pod there accounts for",
    tags,
    access: operator,
    request: { query: listQuery.extend({ node: z.string().max(255).optional() }) },
    responses: { 200: listOf(unmanagedContainer) },
    handler: async ({ query }, { system }) => {
      const nodeId = query.node === undefined ? undefined : await findNodeId(system, query.node);
      const [afterVmid, afterNode] = decodeCursor(query.cursor, 2) ?? [];
      const after =
        afterNode === undefined ? undefined : { nodeId: afterNode, vmid: Number.parseInt(afterVmid ?? "", 10) || 0 };
      const rows = await listUnmanaged(system, { limit: query.limit + 1, nodeId, after });
      return {
        status: 200,
        body: toPage(
          rows,
          query.limit,
          (row) => [String(row.vmid), row.nodeId],
          (row) => row,
        ),
      };
    },
  });
}

function registerHistories(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/nodes/:node/events",
    summary: "What happened to a host, newest first",
    tags,
    access: operator,
    request: { query: listQuery },
    responses: { 200: listOf(nodeEvent) },
    handler: async ({ params, query }, { system }) => {
      const nodeId = await findNodeId(system, params.node);
      const rows = await listNodeEvents(system, nodeId, {
        limit: query.limit + 1,
        beforeId: decodeCursor(query.cursor, 1)?.[0],
      });
      return {
        status: 200,
        body: toIdPage(rows, query.limit, (row) => row),
      };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/nodes/:node/samples",
    summary: "Measurements of a host over time, oldest first",
    tags,
    access: operator,
    request: { query: z.object({ hours: z.coerce.number().int().min(1).max(72).default(1) }) },
    responses: { 200: z.object({ data: z.array(nodeSample) }) },
    handler: async ({ params, query }, { system, now }) => {
      const nodeId = await findNodeId(system, params.node);
      return {
        status: 200,
        body: { data: await readNodeSamples(system, nodeId, new Date(now.getTime() - query.hours * 3_600_000)) },
      };
    },
  });
}

function registerChanging(routes: RouteTable): void {
  route(routes, {
    method: "put",
    path: "/api/nodes/:node",
    summary: "Change settings of a host",
    tags,
    access: operator,
    checksVersion: true,
    request: { body: nodeChanges, example: { maintenanceNote: "memory is replaced on Friday" } },
    responses: { 200: nodeView },
    handler: async ({ params, body, ifMatch }, ctx) =>
      changed(ctx, params.node, ifMatch, (tx, nodeId, by) => changeNode(tx, nodeId, body, by)),
  });
  route(routes, {
    method: "post",
    path: "/api/nodes/:node/cordon",
    summary: "Place nothing new on a host",
    tags,
    access: operator,
    checksVersion: true,
    request: {
      body: z.strictObject({
        reason: z.string().min(1).max(500),
        until: z.iso
          .datetime()
          .optional()
          .openapi({ description: "The host opens by itself then; absent: when somebody opens it." }),
      }),
      example: { reason: "disk is failing" },
    },
    responses: { 200: nodeView },
    handler: async ({ params, body, ifMatch }, ctx) =>
      changed(ctx, params.node, ifMatch, (tx, nodeId, by) =>
        cordonNode(tx, nodeId, { reason: body.reason, until: futureTime(body.until, ctx.now) }, by),
      ),
  });
  route(routes, {
    method: "post",
    path: "/api/nodes/:node/uncordon",
    summary: "Allow new pods on a host again",
    tags,
    access: operator,
    checksVersion: true,
    request: {
      body: z.strictObject({ reason: z.string().min(1).max(500).optional() }),
      example: { reason: "disk was replaced" },
    },
    responses: { 200: nodeView },
    handler: async ({ params, body, ifMatch }, ctx) =>
      changed(ctx, params.node, ifMatch, (tx, nodeId, by) => uncordonNode(tx, nodeId, body.reason, by)),
  });
}

function futureTime(text: string | undefined, now: Date): Date | undefined {
  const time = text === undefined ? undefined : new Date(text);
  if (time === undefined || time > now) return time;
  throw new DomainError("invalid", "CORDON_ENDS_IN_THE_PAST", "A cordon must end in the future.", {
    errors: [{ pointer: "/until", detail: "must be in the future" }],
  });
}

/** Runs a change on a locked host whose version the caller knows, and answers what it is then. */
async function changed(
  ctx: UserContext,
  reference: string,
  ifMatch: number | undefined,
  change: (tx: Transaction, nodeId: string, by: NodeChangeBy) => Promise<void>,
) {
  const node = await ctx.inSystem(async (tx) => {
    const nodeId = await findNodeId(tx, reference);
    checkVersion(ifMatch, (await lockNode(tx, nodeId)).version);
    await change(tx, nodeId, { actor: ctx.actor, requestId: ctx.requestId });
    return await readNode(tx, nodeId);
  });
  return { status: 200 as const, headers: { etag: etagOf(node.version) }, body: node };
}

function registerRemoving(routes: RouteTable, { hints }: NodeRouteDeps): void {
  route(routes, {
    method: "delete",
    path: "/api/nodes/:node",
    summary: "Take an empty host out of the fleet",
    tags,
    access: operator,
    checksVersion: true,
    responses: { 200: removalView },
    handler: async ({ params, ifMatch }, ctx) => {
      const removed = await ctx.inSystem(async (tx) => {
        const nodeId = await findNodeId(tx, params.node);
        checkVersion(ifMatch, (await lockNode(tx, nodeId)).version);
        return { nodeId, ...(await removeNode(tx, nodeId, { actor: ctx.actor, requestId: ctx.requestId })) };
      });
      hints.send("node_sessions", removed.nodeId);
      for (const commandId of removed.cancelled) hints.send("commands_finished", commandId);
      return { status: 200, body: { backupsGone: removed.backupsGone } };
    },
  });
}
