import type { TaskType } from "@cloudpods/shared/task-types";
import { checkVersion } from "../http/version-check.ts";
import type { Transaction } from "../platform/database.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { createTask } from "../tasks/create-task.ts";
import type { Task } from "../tasks/task.ts";
import { lockPod, type Pod } from "./pod.ts";

/** Who asks for work on a pod. */
export interface Requester {
  readonly tenantId: string;
  readonly actor: Actor;
  readonly requestId: string;
  /** Version of the pod that he decided on; undefined: any. */
  readonly ifMatch?: number | undefined;
}

/**
 * Locks the pod that somebody asks work of.
 * @throws DomainError `POD_NOT_FOUND`, `VERSION_MISMATCH`
 */
export async function lockAskedPod(tx: Transaction, who: Requester, reference: string): Promise<Pod> {
  const pod = await lockPod(tx, who.tenantId, reference);
  checkVersion(who.ifMatch, pod.version);
  return pod;
}

/** Puts work on a pod into the queue and says in the audit log who asked for it. */
export async function requestWork(
  tx: Transaction,
  who: Requester,
  pod: Pod,
  work: {
    readonly type: TaskType;
    readonly step: string;
    readonly deadlineMs: number;
    readonly input?: Readonly<Record<string, unknown>>;
    readonly message: string;
    readonly detail?: Readonly<Record<string, unknown>>;
  },
): Promise<Task> {
  await recordAudit(tx, {
    actor: who.actor,
    requestId: who.requestId,
    tenantId: pod.tenantId,
    action: `pod.${work.type}`,
    targetType: "pod",
    targetId: pod.id,
    ...(work.detail === undefined ? {} : { detail: work.detail }),
  });
  return await createTask(tx, {
    tenantId: pod.tenantId,
    podId: pod.id,
    type: work.type,
    step: work.step,
    input: work.input ?? {},
    deadlineMs: work.deadlineMs,
    requestedBy: `${who.actor.kind}:${who.actor.id}`,
    requestId: who.requestId,
    message: work.message,
  });
}
