import { z } from "@hono/zod-openapi";
import { dryRun } from "../http/fields.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { askHosts } from "../nodes/ask-hosts.ts";
import { findNodeId } from "../nodes/find-node.ts";
import type { PlannedCommand } from "../nodes/planned-command.ts";
import type { Transaction } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import type { PodHints } from "../pods/pod-hints.ts";
import { acceptedView, toPodView } from "../pods/pod-view.ts";
import { findPodOfAnyTenant, lockPodById, type Pod } from "../pods/pod.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { NoCapacityError } from "../scheduling/no-capacity.ts";
import { toTaskView } from "../tasks/task-view.ts";
import { plannedMoveView, toPlannedMoveView } from "./move-views.ts";
import { planMoves, type PlannedMove } from "./plan-moves.ts";
import { readPlannedCommands } from "./read-planned-commands.ts";
import { readPodsToMove, readSurroundings } from "./read-surroundings.ts";
import { refuseReserved, requestMove, requireHostOnline, requireMovable } from "./request-move.ts";
import { noWayTo } from "./reserve-move.ts";

/** What the routes of moves need. */
export interface MoveRouteDeps {
  readonly fleet: FleetView;
  readonly hints: PodHints;
  /** For questions to hosts; undefined: none is asked. */
  readonly allHints?: Hints;
}

const body = z.strictObject({
  target: z
    .string()
    .min(1)
    .max(255)
    .optional()
    .openapi({ description: "Name or id of the host; absent: the best one." }),
  reason: z.string().min(1).max(500),
});

/** One pod moves, on an operator's word. */
export function registerMoveRoutes(routes: RouteTable, { fleet, hints, allHints }: MoveRouteDeps): void {
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/admin/:pod/migrate",
    summary: "Move a pod to another host",
    tags: ["operators"],
    access: { platform: "OPERATOR" },
    idempotent: true,
    request: { query: z.object({ dryRun }), body, example: { reason: "the host's disk is failing" } },
    responses: { 202: acceptedView, 200: plannedMoveView },
    async handler({ params, query, body: wish }, ctx) {
      if (query.dryRun) {
        const { planned, commands } = await ctx.inSystem(async (tx) => {
          const pod = await findPodOfAnyTenant(tx, params.pod);
          const target = wish.target === undefined ? undefined : await findNodeId(tx, wish.target);
          return await planOne(tx, fleet, pod, target);
        });
        const [told = []] = await askHosts({ db: ctx.system, hints: allHints }, [commands]);
        return { status: 200, body: toPlannedMoveView(planned, told) };
      }
      const { pod, task } = await ctx.inSystem(async (tx) => {
        const target = wish.target === undefined ? undefined : await findNodeId(tx, wish.target);
        const locked = await lockPodById(tx, (await findPodOfAnyTenant(tx, params.pod)).id);
        const request = { targetNodeId: target, reason: wish.reason };
        return await requestMove(tx, fleet, ctx, locked, request).catch(tellOperator);
      });
      ctx.afterCommit(() => hints.workQueued(task.id, pod.nodeId));
      return {
        status: 202,
        headers: { location: `/api/tasks/${task.id}` },
        body: { pod: toPodView(pod), task: toTaskView(task) },
      };
    },
  });
}

function tellOperator(error: unknown): never {
  throw error instanceof NoCapacityError ? error.forOperator() : error;
}

async function planOne(
  tx: Transaction,
  fleet: FleetView,
  pod: Pod,
  targetNodeId: string | undefined,
): Promise<{ planned: PlannedMove; commands: PlannedCommand[] }> {
  requireMovable(pod);
  await requireHostOnline(tx, pod);
  await refuseReserved(tx, pod);
  const pods = pod.nodeId === null ? [] : await readPodsToMove(tx, pod.nodeId, pod.id);
  const around = await readSurroundings(tx, pod.nodeId ?? pod.id, pods, await fleet.fresh(tx));
  const reach = around.reach.filter(({ nodeId }) => targetNodeId === undefined || nodeId === targetNodeId);
  const [found] = planMoves(pods, { ...around, reach }, 1).moves;
  if (found === undefined || pod.nodeId === null) throw new Error(`pod ${pod.id} has no place`);
  const planned =
    found.blocker?.code === "NO_WAY" ? { ...found, blocker: await noWayTo(tx, pod, targetNodeId) } : found;
  const known = pods.map((one) => ({ pod: one, runs: one.runs }));
  const [commands = []] = await readPlannedCommands(tx, pod.nodeId, [planned], known);
  return { planned, commands };
}
