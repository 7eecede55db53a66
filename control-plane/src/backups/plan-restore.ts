import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { checkVersion } from "../http/version-check.ts";
import { isBusy } from "../moves/request-move.ts";
import { shallRun } from "../moves/reserve-move.ts";
import { commandTo, made, type PlannedCommand } from "../nodes/planned-command.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { planOrder, type OrderAsker, type PlannedOrder } from "../pods/dry-run.ts";
import type { ExtraVolumes } from "../pods/extra-volumes.ts";
import { findPod, type Pod } from "../pods/pod.ts";
import { shutdownTimeoutSeconds } from "../pods/power-steps.ts";
import type { Requester } from "../pods/request-work.ts";
import { podBusy } from "../tasks/create-task.ts";
import { lookWish } from "./archive-steps.ts";
import { findBackup, isUsable, type UsableBackup } from "./backup.ts";
import { newPodOf, type RestoreWish } from "./request-restore.ts";
import { requireNothingBesides, requireRestorable } from "./require-restorable.ts";
import { restoreOperation, restoreWish } from "./restore-wish.ts";

/** What a restore in place, or as a new pod, would do. */
interface Plan {
  /** The pod that was backed up. */
  readonly pod: Pod;
  readonly backup: UsableBackup;
  /** Backups made since that something can be made from; a restore leaves them. */
  readonly newerBackups: number;
  /** What the host would be told, in order. */
  readonly commands: readonly PlannedCommand[];
}

/** What a restore in place would do. */
export interface RestorePlan extends Plan {
  /** Whether the pod runs afterwards, as is wanted of it at this moment. */
  readonly runs: boolean;
}

/** What a restore as a new pod would do. */
export interface NewPodPlan extends Plan {
  readonly hostname: string;
  readonly planned: PlannedOrder;
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

/**
 * What a restore as a new pod would do at this moment: asks all that the order asks, locks nothing and claims nothing. That
 * there is no place for it, or no quota, is part of the plan.
 * @throws DomainError as `orderFromBackup`, but for `QUOTA_EXCEEDED` and `NO_CAPACITY`
 */
export async function planNewPod(
  tx: Queryable,
  who: OrderAsker,
  reference: string,
  backupId: string,
  wish: RestoreWish,
): Promise<NewPodPlan> {
  const pod = await findPod(tx, who.tenantId, reference);
  const order = await newPodOf(tx, pod, await findBackup(tx, pod, backupId), wish);
  const backup = order.source;
  const planned = await planOrder(tx, who, order);
  return {
    pod,
    backup,
    newerBackups: await countNewer(tx, backup),
    hostname: order.hostname,
    planned,
    commands: planned.there === undefined ? [] : commandsOfNew(planned.there, backup),
  };
}

function commandsOfNew(
  { spec, ...host }: NonNullable<PlannedOrder["there"]>,
  { volumeId }: UsableBackup,
): PlannedCommand[] {
  const pod = { id: made.pod, vmid: made.vmid, generation: 1n };
  const power = { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 0 };
  return [
    commandTo(host, pod, restoreOperation(spec, volumeId)),
    commandTo(host, pod, { $case: "ensurePower", value: power }),
  ];
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
