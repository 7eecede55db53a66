import type { PlannedCommand } from "../nodes/planned-command.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import type { PlannedMove } from "./plan-moves.ts";
import { plannedCommands, type PlannedHost } from "./planned-commands.ts";
import { readReach, type Reach } from "./reach.ts";

/** A pod of a plan, and whether it would run afterwards. */
export interface PlannedPod {
  readonly pod: Pod;
  readonly runs: boolean;
}

interface HostRow extends PlannedHost {
  readonly clusterId: string | null;
}

/** What the hosts of planned moves from one host would be told, move by move; nothing where a pod stays. */
export async function readPlannedCommands(
  tx: Queryable,
  fromNodeId: string,
  moves: readonly PlannedMove[],
  pods: readonly PlannedPod[],
): Promise<PlannedCommand[][]> {
  const targets = moves.flatMap(({ target }) => (target === null ? [] : [target.nodeId]));
  const [rows, reach] = await Promise.all([
    tx.query<HostRow>(sql`
      SELECT id AS "nodeId", name AS node, coalesce(pve_name, name) AS "pveName", bridge, pool, cluster_id AS "clusterId" FROM nodes
      WHERE id = ANY(${[fromNodeId, ...targets]}::uuid[])`),
    readReach(tx, fromNodeId),
  ]);
  const hosts = new Map(rows.map((row) => [row.nodeId, row]));
  return moves.map((move) => commandsOf(move, pods, { hosts, reach, from: hosts.get(fromNodeId) }));
}

function commandsOf(
  { podId, target, strategy, archive }: PlannedMove,
  pods: readonly PlannedPod[],
  around: {
    readonly hosts: ReadonlyMap<string, HostRow>;
    readonly reach: readonly Reach[];
    readonly from: HostRow | undefined;
  },
): PlannedCommand[] {
  const { hosts, reach, from } = around;
  const planned = pods.find(({ pod }) => pod.id === podId);
  const to = target === null ? undefined : hosts.get(target.nodeId);
  if (planned === undefined || target === null || strategy === null || from === undefined || to === undefined)
    return [];
  return plannedCommands({
    ...planned,
    strategy,
    from,
    to,
    isInCluster: from.clusterId !== null && from.clusterId === to.clusterId,
    storage: target.storage,
    archiveStorage: reach.find(({ nodeId }) => nodeId === to.nodeId)?.archiveStorage ?? null,
    archiveVolumeId: archive?.volumeId ?? null,
  });
}
