import type { z } from "@hono/zod-openapi";
import { toPlannedMoveView } from "../moves/move-views.ts";
import { planMoves, withRoomTaken, type PlannedMove } from "../moves/plan-moves.ts";
import { expectedCost, totalDurationMs } from "../moves/expected-downtime.ts";
import { readHistory, readPodsToMove, readSurroundings } from "../moves/read-surroundings.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { selectPods, type Pod } from "../pods/pod.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { rankNodes } from "../scheduling/rank-nodes.ts";
import { summaryOf } from "../scheduling/verdict.ts";
import { chooseRescue } from "./choose-rescue.ts";
import type { drainPlanView } from "./drain-view.ts";
import { rescueRequest } from "./rescue-pod.ts";

type Plan = z.input<typeof drainPlanView>;

/** What the emptying of a host would do at this moment; nothing is claimed. */
export async function planDrain(tx: Queryable, fleet: FleetView, nodeId: string, maxParallel: number): Promise<Plan> {
  const { name, members } = await readNode(tx, nodeId);
  const pods = await readPodsToMove(tx, nodeId);
  const { moves, totalMs } = planMoves(
    pods,
    await readSurroundings(tx, nodeId, pods, await fleet.fresh(tx)),
    maxParallel,
  );
  return planOf(name, members, moves, totalMs);
}

/** What an evacuation would bring back from what, with the age of each backup in the words of the plan. */
export async function planEvacuation(
  tx: Queryable,
  fleet: FleetView,
  nodeId: string,
  maxParallel: number,
  now: Date,
): Promise<Plan> {
  const { name, members } = await readNode(tx, nodeId);
  const [pods, history] = await Promise.all([
    tx.query<Pod>(
      sql`${selectPods} WHERE p.node_id = ${nodeId} AND p.status <> 'deleted' ORDER BY p.memory_mb DESC, p.id`,
    ),
    readHistory(tx),
  ]);
  let snapshot = await fleet.fresh(tx);
  const moves: PlannedMove[] = [];
  for (const pod of pods) {
    const isMovable = pod.status === "active" || pod.status === "suspended";
    const rescue = isMovable ? await chooseRescue(tx, pod) : undefined;
    const identity = { podId: pod.id, name: pod.name, vmid: pod.vmid, backupsLeftBehind: [] };
    const nothing = { ...identity, target: null, strategy: null, expectedDowntimeMs: null, expectedDurationMs: null };
    if (rescue === undefined) {
      const blocker = isMovable
        ? { code: "NO_BACKUP", message: "There is no backup that another host sees, and its disk went with its host." }
        : { code: `POD_${pod.status.toUpperCase()}`, message: `The pod is ${pod.status}.` };
      moves.push({ ...nothing, blocker });
      continue;
    }
    const request = rescueRequest(pod, rescue);
    const ranking = rankNodes(request, snapshot, { podsByNode: new Map(), conflictingNodes: new Set() });
    const [candidate] = [...Iterator.from(ranking.candidates).take(1)];
    if (candidate === undefined) {
      moves.push({
        ...nothing,
        blocker: { code: "NO_CAPACITY", message: `No host that could has room: ${summaryOf(ranking)}.` },
      });
      continue;
    }
    snapshot = withRoomTaken(snapshot, candidate, request);
    const strategy = rescue.hosts.find((host) => host.nodeId === candidate.node.id)?.strategy ?? "restore-newest";
    const { durationMs } = expectedCost(history, { strategy, diskGb: pod.diskGb, runs: false });
    moves.push({
      ...identity,
      target: { nodeId: candidate.node.id, node: candidate.node.name, storage: candidate.storage.name },
      strategy,
      expectedDowntimeMs: null,
      expectedDurationMs: durationMs,
      archive:
        rescue.archive === undefined
          ? null
          : {
              ...rescue.archive,
              ageSeconds: Math.max(0, Math.round((now.getTime() - rescue.archive.madeAt.getTime()) / 1_000)),
            },
      blocker: null,
    });
  }
  const durations = moves.filter(({ target }) => target !== null).map(({ expectedDurationMs }) => expectedDurationMs);
  return planOf(name, members, moves, totalDurationMs(durations, maxParallel));
}

async function readNode(tx: Queryable, nodeId: string): Promise<{ name: string; members: ReadonlySet<string> }> {
  const [node] = await tx.query<{ name: string; members: string[] }>(sql`
    SELECT n.name, array(SELECT o.id::text FROM nodes o WHERE o.cluster_id = n.cluster_id) AS members FROM nodes n WHERE n.id = ${nodeId}`);
  return { name: node?.name ?? "", members: new Set(node?.members) };
}

function planOf(
  node: string,
  members: ReadonlySet<string>,
  moves: readonly PlannedMove[],
  totalMs: number | null,
): Plan {
  const movable = moves.filter(({ target }) => target !== null).length;
  return {
    dryRun: true,
    node,
    moves: moves.map((move) => toPlannedMoveView(move, node, move.target !== null && members.has(move.target.nodeId))),
    movable,
    blocked: moves.length - movable,
    totalMs,
  };
}
