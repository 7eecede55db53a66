import { readPlannedCommands, type PlannedPod } from "../moves/read-planned-commands.ts";
import { noPlace } from "../moves/no-place.ts";
import { shallRun } from "../moves/reserve-move.ts";
import { planMoves, withRoomTaken, type PlannedMove } from "../moves/plan-moves.ts";
import { expectedCost, totalDurationMs } from "../moves/expected-downtime.ts";
import { readHistory, readPodsToMove, readSurroundings } from "../moves/read-surroundings.ts";
import type { PlannedCommand } from "../nodes/planned-command.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { selectPods, type Pod } from "../pods/pod.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { rankNodes } from "../scheduling/rank-nodes.ts";
import { keptVerdict, verdictOf } from "../scheduling/verdict.ts";
import { chooseRescue, noBackup, type Rescue } from "./choose-rescue.ts";
import { membersFirst, rescueRequest } from "./rescue-pod.ts";

/** What would be done about the pods of a host. */
export interface HostPlan {
  readonly node: string;
  readonly moves: readonly PlannedMove[];
  /** What the hosts would be told, move by move. */
  readonly commands: readonly PlannedCommand[][];
  readonly totalMs: number | null;
}

/** What the emptying of a host would do at this moment; nothing is claimed. */
export async function planDrain(
  tx: Queryable,
  fleet: FleetView,
  nodeId: string,
  maxParallel: number,
): Promise<HostPlan> {
  const pods = await readPodsToMove(tx, nodeId);
  const { moves, totalMs } = planMoves(
    pods,
    await readSurroundings(tx, nodeId, pods, await fleet.fresh(tx)),
    maxParallel,
  );
  const known = pods.map((pod) => ({ pod, runs: pod.runs }));
  return await planOf(tx, nodeId, { moves, totalMs }, known);
}

/** What an evacuation would bring back from what, with the age of each backup in the words of the plan. */
export async function planEvacuation(
  tx: Queryable,
  fleet: FleetView,
  nodeId: string,
  maxParallel: number,
  now: Date,
): Promise<HostPlan> {
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
        ? noBackup
        : { code: `POD_${pod.status.toUpperCase()}`, message: `The pod is ${pod.status}.` };
      moves.push({ ...nothing, blocker });
      continue;
    }
    if (rescue.blocker !== undefined) {
      moves.push({ ...nothing, blocker: rescue.blocker });
      continue;
    }
    const rank = (hosts: Rescue["hosts"]) => {
      const request = rescueRequest(pod, { ...rescue, hosts });
      const ranking = rankNodes(request, snapshot, { podsByNode: new Map(), conflictingNodes: new Set() });
      const [candidate] = [...Iterator.from(ranking.candidates).take(1)];
      return { request, ranking, candidate };
    };
    const members = membersFirst(rescue.hosts);
    const onMembers = members === undefined ? undefined : rank(members);
    const { request, ranking, candidate } = onMembers?.candidate === undefined ? rank(rescue.hosts) : onMembers;
    if (candidate === undefined) {
      moves.push({ ...nothing, blocker: noPlace(verdictOf(ranking, undefined, keptVerdict)) });
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
  const known = await Promise.all(pods.map(async (pod) => ({ pod, runs: await shallRun(tx, pod) })));
  return await planOf(tx, nodeId, { moves, totalMs: totalDurationMs(durations, maxParallel) }, known);
}

async function planOf(
  tx: Queryable,
  nodeId: string,
  { moves, totalMs }: Pick<HostPlan, "moves" | "totalMs">,
  pods: readonly PlannedPod[],
): Promise<HostPlan> {
  const [node] = await tx.query<{ name: string }>(sql`SELECT name FROM nodes WHERE id = ${nodeId}`);
  return { node: node?.name ?? "", moves, totalMs, commands: await readPlannedCommands(tx, nodeId, moves, pods) };
}
