import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { checkVersion } from "../http/version-check.ts";
import { isBusy } from "../moves/request-move.ts";
import { shallRun } from "../moves/reserve-move.ts";
import { commandTo, type PlannedCommand } from "../nodes/planned-command.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { ExtraVolumes } from "../pods/extra-volumes.ts";
import { findPod, type Pod } from "../pods/pod.ts";
import { shutdownTimeoutSeconds } from "../pods/power-steps.ts";
import type { Requester } from "../pods/request-work.ts";
import { podBusy } from "../tasks/create-task.ts";
import { lookWish } from "./archive-steps.ts";
import { findBackup, isUsable, type UsableBackup } from "./backup.ts";
import { requireNothingBesides, requireRestorable } from "./require-restorable.ts";
import { restoreWish } from "./restore-wish.ts";

/** What a restore in place would do. */
export interface RestorePlan {
  readonly pod: Pod;
  readonly backup: UsableBackup;
  /** Backups made since that something can be made from; a restore leaves them. */
  readonly newerBackups: number;
  /** Whether the pod runs afterwards, as is wanted of it at this moment. */
  readonly runs: boolean;
  /** What its host would be told, in order. */
  readonly commands: readonly PlannedCommand[];
}

/**
 * What a restore in place would do at this moment: asks all that the request asks, locks nothing and changes nothing.
 * @throws DomainError as `requestRestore`
 */
export async function planRestore(
  tx: Queryable,
  who: Pick<Requester, "tenantId" | "ifMatch">,
  reference: string,
  backupId: string,
  parts?: ExtraVolumes,
): Promise<RestorePlan> {
  const pod = await findPod(tx, who.tenantId, reference);
  checkVersion(who.ifMatch, pod.version);
  const backup = await requireRestorable(tx, pod, await findBackup(tx, pod, backupId));
  requireNothingBesides(parts);
  if (await isBusy(tx, pod.id)) throw podBusy();
  const runs = await shallRun(tx, pod);
  return { pod, backup, newerBackups: await countNewer(tx, backup), runs, commands: commandsOf(pod, backup, runs) };
}

/** That the host asks itself once more (`look`) runs no program, so it is not among them. */
function commandsOf(pod: Pod, { volumeId }: UsableBackup, runs: boolean): PlannedCommand[] {
  const { nodeId, nodeName } = pod;
  if (nodeId === null) return [];
  const host = { nodeId, node: nodeName ?? "" };
  const power = (wanted: Power, timeoutSeconds: number) =>
    commandTo(host, pod, { $case: "ensurePower", value: { power: wanted, shutdownTimeoutSeconds: timeoutSeconds } });
  return [
    commandTo(host, pod, lookWish(volumeId).op),
    ...(pod.containerMissingSince === null ? [power(Power.POWER_STOPPED, shutdownTimeoutSeconds)] : []),
    commandTo(host, pod, restoreWish(pod, volumeId).op),
    ...(runs ? [power(Power.POWER_RUNNING, 0)] : []),
  ];
}

async function countNewer(tx: Queryable, { id, podId, startedAt }: UsableBackup): Promise<number> {
  const [counted] = await tx.query<{ newer: number }>(sql`
    SELECT count(*)::integer AS newer FROM cloud_pod_backups b
    WHERE b.pod_id = ${podId} AND b.id <> ${id} AND b.started_at >= ${startedAt} AND ${isUsable}`);
  return counted?.newer ?? 0;
}
