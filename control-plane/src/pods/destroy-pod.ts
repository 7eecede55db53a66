import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { makeArchiveStep } from "../backups/archive-steps.ts";
import { insertBackup, requireBackable } from "../backups/request-backup.ts";
import { sql } from "../platform/sql.ts";
import type { Transaction } from "../platform/database.ts";
import { stopCommand } from "../tasks/change-task.ts";
import { appendTaskEvent } from "../tasks/task-events.ts";
import { taskColumns, type Task } from "../tasks/task.ts";
import type { Accepted } from "./change-power.ts";
import { destroyDeadlineMs } from "./destroy-pod.saga.ts";
import { namesOf, type ExtraVolumes } from "./extra-volumes.ts";
import { lockPod, type Pod } from "./pod.ts";
import { beginRemoval } from "./release-pod.ts";
import { lockAskedPod, requestWork, type Requester } from "./request-work.ts";

/** What is known of volumes that would go with a pod although no pod has them. */
export interface DestroyOptions {
  /** Undefined: there are none. */
  readonly volumes?: ExtraVolumes | undefined;
  /** Whoever asks knows that they go too. */
  readonly removeVolumes?: boolean;
}

/**
 * Nobody's data goes without a word. What is added after this was asked the host refuses.
 * @returns keys of volumes that may go with the pod
 * @throws DomainError `MORE_THAN_A_POD`
 */
export function requireNothingElse({ volumes, removeVolumes = false }: DestroyOptions): readonly string[] {
  if (volumes === undefined) return [];
  if (removeVolumes) return volumes.keys;
  throw moreThanAPod(volumes, "which would be removed too: ask again with removeVolumes=true if that is meant");
}

function moreThanAPod(volumes: ExtraVolumes, why: string): DomainError {
  const message = `The pod's container has ${namesOf(volumes)}, ${why}.`;
  return new DomainError("wrong-state", "MORE_THAN_A_POD", message, { details: { volumes: volumes.keys } });
}

/**
 * Destroys a pod in whatever state it is. Work that is under way ends as cancelled: removal supersedes it
 * on the host as well. The bill ends now, however long the host takes.
 * @throws DomainError `VERSION_MISMATCH`, `MORE_THAN_A_POD`, `POD_WRONG_STATE` for a pod that is being deleted already
 */
export async function destroyPodNow(
  tx: Transaction,
  who: Requester,
  reference: string,
  now: Date,
  options: DestroyOptions = {},
): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  const volumes = requireNothingElse(options);
  await beginRemoval(tx, pod, now);
  await endOpenWork(tx, pod);
  const task = await requestWork(tx, who, pod, {
    type: "destroy",
    step: "remove",
    deadlineMs: destroyDeadlineMs,
    input: { volumes },
    message: "Accepted",
    ...(volumes.length === 0 ? {} : { detail: { volumes } }),
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/**
 * Destroys a pod once a last backup of it is there and was read. Until then the pod is what it was, and stays so when
 * there will be none.
 * @throws DomainError `POD_WRONG_STATE`, `NO_BACKUP_STORAGE`, `POD_BUSY`, `VERSION_MISMATCH`, `MORE_THAN_A_POD`
 */
export async function destroyAfterBackup(
  tx: Transaction,
  who: Requester,
  reference: string,
  options: DestroyOptions = {},
): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  const volumes = requireFinalBackup(pod, options);
  const backupId = newId();
  const task = await requestWork(tx, who, pod, {
    type: "destroy",
    step: makeArchiveStep.name,
    deadlineMs: destroyDeadlineMs,
    input: { backupId, volumes },
    message: "Accepted; a last backup is made first",
    detail: { backupId, ...(volumes.length === 0 ? {} : { volumes }) },
  });
  await insertBackup(tx, pod, { id: backupId, kind: "final", taskId: task.id });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/**
 * What stands against a last backup whatever the host has room for; the dry run asks the same.
 * @returns keys of volumes that may go with the pod
 */
export function requireFinalBackup(pod: Pod, options: DestroyOptions): readonly string[] {
  const volumes = requireNothingElse(options);
  if (options.volumes !== undefined && volumes.some((key) => key.startsWith("mp")))
    throw moreThanAPod(options.volumes, "which a last backup would not hold");
  requireBackable(pod);
  return volumes;
}

async function endOpenWork(tx: Transaction, pod: Pod): Promise<void> {
  const open = await tx.query<Task>(sql`
    SELECT ${taskColumns} FROM cloud_pod_provisioning_tasks t
    WHERE t.pod_id = ${pod.id} AND t.state NOT IN ('succeeded', 'failed', 'cancelled') FOR UPDATE`);
  for (const task of open) {
    await stopCommand(tx, task);
    await tx.execute(sql`
      UPDATE cloud_pod_provisioning_tasks SET state = 'cancelled', command_id = NULL, error_code = 'POD_DESTROYED',
        error_message = 'The pod was destroyed', finished_at = now() WHERE id = ${task.id}`);
    await appendTaskEvent(tx, {
      id: task.id,
      state: "cancelled",
      step: task.step,
      percent: task.percent,
      message: "The pod is being destroyed",
    });
  }
}
