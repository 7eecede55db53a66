import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { commandTo, made, type PlannedCommand } from "../nodes/planned-command.ts";
import type { Pod } from "../pods/pod.ts";
import { shutdownTimeoutSeconds, targetSpec } from "./forward-steps.ts";
import type { MoveStrategy } from "./move.ts";

/** A host of a planned move. */
export interface PlannedHost {
  readonly nodeId: string;
  readonly node: string;
  readonly pveName: string;
  readonly bridge: string;
  readonly pool: string | null;
}

/** What the commands of a planned move follow from. */
export interface PlannedWay {
  readonly pod: Pod;
  readonly strategy: MoveStrategy;
  readonly from: PlannedHost;
  readonly to: PlannedHost;
  readonly isInCluster: boolean;
  /** Of the root disk on the target. */
  readonly storage: string;
  /** Where an archive of the move itself would go. */
  readonly archiveStorage: string | null;
  /** What the pod of a host that is gone comes back from; null: its own disk. */
  readonly archiveVolumeId: string | null;
  readonly runs: boolean;
}

type Operation = NonNullable<PlannedCommand["command"]["op"]>;

/** What the hosts of a move would be told, in order. */
export function plannedCommands(way: PlannedWay): PlannedCommand[] {
  const { strategy, isInCluster, from, to, pod, runs } = way;
  const power = (wanted: boolean): Operation => ({
    $case: "ensurePower",
    value: { power: wanted ? Power.POWER_RUNNING : Power.POWER_STOPPED, shutdownTimeoutSeconds },
  });
  const told = (host: PlannedHost, op: Operation, canBeAsked?: boolean) => commandTo(host, pod, op, canBeAsked);
  const gone: Operation = { $case: "ensureAbsent", value: { volumes: [] } };
  const spec = targetSpec(pod, { storage: way.storage, bridge: to.bridge, pool: to.pool });
  if (strategy === "cluster-migrate") {
    const targetStorage = pod.storage === way.storage ? "" : way.storage;
    const value = { target: to.pveName, targetStorage, shutdownTimeoutSeconds: 2 * shutdownTimeoutSeconds };
    return [
      told(from, { $case: "migrate", value }),
      told(to, { $case: "ensureContainer", value: { spec } }, false),
      told(to, power(runs), false),
    ];
  }
  const isRescue = strategy !== "backup-restore";
  const volumeId = isRescue ? (way.archiveVolumeId ?? "") : archiveName(way.archiveStorage ?? "", pod.vmid);
  const takeOverFrom = strategy === "take-over" ? from.pveName : "";
  const restore = { volumeId, spec, overwrite: true, takeOverFrom };
  const verify: Operation = { $case: "verifyBackup", value: { volumeId, atOnce: true } };
  const restoring = [
    told(to, { $case: "restore", value: restore }, takeOverFrom === ""),
    told(to, power(runs), takeOverFrom === ""),
  ];
  if (isRescue) return [...(volumeId === "" ? [] : [told(to, verify)]), ...restoring];
  const backup = { backupId: made.id, storage: way.archiveStorage ?? "", mode: "shut-down" };
  return [
    told(from, { $case: "backup", value: backup }),
    told(from, power(false)),
    told(to, verify),
    ...(isInCluster ? [told(from, gone)] : []),
    ...restoring,
    ...(isInCluster ? [] : [told(from, gone)]),
    told(to, { $case: "deleteBackup", value: { volumeId } }),
  ];
}

/** A name as vzdump would give it. */
function archiveName(storage: string, vmid: number): string {
  return `${storage}:backup/vzdump-lxc-${vmid}-${made.stamp}.tar.zst`;
}
