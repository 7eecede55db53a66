import { DomainError } from "@cloudpods/shared/errors";
import { requestRestore } from "../backups/request-restore.ts";
import { takeBack } from "../drains/take-back.ts";
import { acceptCopy } from "../moves/accept-copy.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { resizeDeadlineMs, sizeOf, wantSize, type PodSize } from "../pods/change-size.saga.ts";
import { destroyPodNow } from "../pods/destroy-pod.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { requestWork } from "../pods/request-work.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { Task } from "../tasks/task.ts";
import type { Remedy } from "./finding.ts";
import { readFinding, type Finding } from "./list-findings.ts";
import { readComparison, type ReadComparison } from "./read-comparison.ts";
import { reconcile } from "./reconcile.ts";
import { removeUnknown, sendDeed } from "./take-deed.ts";

/** An operator's decision about a finding. */
export interface Decision {
  readonly action: Exclude<Remedy, "adopt">;
  readonly reason: string;
  readonly actor: Actor;
  readonly requestId: string;
  readonly now: Date;
}

/** What became of it, and who must be told after the commit. */
export interface Decided {
  readonly finding: Finding;
  readonly task: Task | undefined;
}

/**
 * Does what an operator decided about a finding, if the finding offers it and the host's newest inventory still shows
 * it. It is over when the host shows it no more.
 * @throws DomainError `FINDING_NOT_FOUND`, `FINDING_OVER`, `REMEDY_NOT_OFFERED`, `FINDING_OUTDATED`, and what the remedy throws
 */
export async function resolveFinding(tx: Transaction, id: string, decision: Decision): Promise<Decided> {
  const finding = await readFinding(tx, id);
  const pod = await lockPodOf(tx, finding);
  const [locked] = await tx.query<{ state: string }>(sql`SELECT state FROM node_findings WHERE id = ${id} FOR UPDATE`);
  if (locked?.state === "resolved") throw refused("FINDING_OVER", "This is over: the host shows it no more.");
  if (!finding.offered.includes(decision.action)) {
    const message = `A finding of the kind ${finding.kind} offers ${finding.offered.join(", ")}.`;
    throw refused("REMEDY_NOT_OFFERED", message, { offered: finding.offered });
  }
  const task =
    decision.action === "dismiss" ? await dismiss(tx, finding, decision) : await act(tx, finding, pod, decision);
  await recordAudit(tx, {
    actor: decision.actor,
    requestId: decision.requestId,
    tenantId: pod?.tenantId,
    action: `finding.${decision.action}`,
    targetType: "finding",
    targetId: id,
    detail: {
      kind: finding.kind,
      node: finding.node,
      vmid: finding.vmid,
      podId: finding.podId,
      reason: decision.reason,
    },
  });
  return { finding: await readFinding(tx, id), task };
}

async function lockPodOf(tx: Transaction, { podId, tenantId }: Finding): Promise<Pod | undefined> {
  return podId === null || tenantId === null ? undefined : await lockPodById(tx, podId);
}

async function dismiss(tx: Transaction, { id }: Finding, { actor, reason, now }: Decision): Promise<undefined> {
  await tx.execute(sql`
    UPDATE node_findings SET state = 'dismissed', resolved_at = ${now}, resolved_by = ${nameOf(actor)}, resolution = 'dismissed', reason = ${reason}
    WHERE id = ${id}`);
}

async function act(
  tx: Transaction,
  finding: Finding,
  pod: Pod | undefined,
  decision: Decision,
): Promise<Task | undefined> {
  const comparison = await requireStillSo(tx, finding, decision);
  await tx.execute(sql`
    UPDATE node_findings SET state = 'open', resolved_at = NULL, resolved_by = NULL, resolution = NULL, reason = ${decision.reason}
    WHERE id = ${finding.id}`);
  if (finding.kind === "left-archive") {
    await tryArchivesAgain(tx, finding);
    await noteAction(tx, finding, decision, null);
    return undefined;
  }
  const task = pod === undefined ? undefined : await requestedWork(tx, finding, pod, comparison, decision);
  if (task !== undefined) {
    await noteAction(tx, finding, decision, task.id);
    return task;
  }
  const { vmid, kind } = finding;
  const order = { id: finding.id, by: decision.actor, requestId: decision.requestId };
  const deed = decision.action === "remove" ? "remove" : "repair";
  if (pod !== undefined) {
    await sendDeed(tx, pod, comparison, { deed, vmid, kind }, order);
    return undefined;
  }
  const container = comparison.containers.find((seen) => seen.vmid === vmid);
  if (container === undefined || deed !== "remove") throw outdated();
  await removeUnknown(tx, comparison.nodeId, { ...container, kind }, order, decision.now);
  return undefined;
}

async function noteAction(tx: Transaction, finding: Finding, decision: Decision, taskId: string | null): Promise<void> {
  await tx.execute(sql`
    UPDATE node_findings SET action = ${actionOf(finding, decision)}, action_by = ${nameOf(decision.actor)}, acted_at = ${decision.now},
      attempts = attempts + 1, task_id = ${taskId}::uuid WHERE id = ${finding.id}`);
}

/** As if they were new; whoever looks after archives does the rest. */
async function tryArchivesAgain(tx: Transaction, { podId }: Finding): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_moves SET archive_given_up_at = NULL, archive_tries = 0 WHERE pod_id = ${podId} AND archive_given_up_at IS NOT NULL`);
  await tx.execute(sql`
    UPDATE cloud_pod_backups SET errand_attempts = 0, errand_after = now() WHERE pod_id = ${podId} AND errand_attempts >= 12 AND pruned_at IS NULL`);
}

/** What is done as ordinary work on the pod; undefined for what is a single command. */
async function requestedWork(
  tx: Transaction,
  { kind, nodeId, node, vmid, evidence }: Finding,
  pod: Pod,
  { containers }: ReadComparison,
  { action, actor, requestId, now }: Decision,
): Promise<Task | undefined> {
  const who = { tenantId: pod.tenantId, actor, requestId };
  if (kind === "resized" && action === "accept") return await acceptSize(tx, pod, evidence, who);
  if (kind === "stale-copy" && action === "accept") return await acceptCopy(tx, pod, nodeId, who, now);
  const container = containers.find((seen) => seen.vmid === vmid);
  if (kind === "orphan" && action === "accept" && container !== undefined)
    return await takeBack(tx, pod, { nodeId, node, container }, { actor, requestId, now });
  if (kind !== "missing") return undefined;
  if (action === "remove") return (await destroyPodNow(tx, who, pod.id, now)).task;
  // The finding offers it only where there is one.
  const { newestBackup } = evidence as { newestBackup: { id: string } };
  return (await requestRestore(tx, who, pod.id, newestBackup.id)).task;
}

/** The size that somebody made by hand becomes the pod's, as if it had been ordered: with quota, capacity and the bill from then on. */
async function acceptSize(
  tx: Transaction,
  pod: Pod,
  evidence: Finding["evidence"],
  who: { readonly tenantId: string; readonly actor: Actor; readonly requestId: string },
): Promise<Task> {
  const { seen } = evidence as { seen: Pick<PodSize, "cores" | "memoryMb" | "swapMb" | "diskGb"> };
  const from = sizeOf(pod);
  // Resources of one's own are no plan's and are paid by use.
  const to: PodSize = { ...from, ...seen, planCode: null, billingMode: "metered" };
  await wantSize(tx, pod, to);
  return await requestWork(tx, who, pod, {
    type: "resize",
    step: "resize",
    deadlineMs: resizeDeadlineMs,
    input: { from, to },
    message: "The size that the container has is accepted",
    detail: { from, to },
  });
}

/** The newest inventory and the pod as it is now decide, and nothing is begun while somebody works on it. */
async function requireStillSo(tx: Transaction, finding: Finding, { action, now }: Decision): Promise<ReadComparison> {
  const comparison = await readComparison(tx, finding.nodeId);
  if (comparison === undefined) throw outdated();
  const { seen } = reconcile(comparison, { now, graceMs: 0, sightingsMin: 1, mayAct: false });
  const still = seen.find((fact) => fact.known?.id === finding.id && fact.subject === finding.subject);
  if (still?.offered.includes(action) !== true) throw outdated();
  return comparison;
}

function actionOf({ kind }: Finding, { action }: Decision): string {
  return kind === "missing" && action === "repair" ? "restore" : action;
}

function nameOf(actor: Actor): string {
  return `${actor.kind}:${actor.id}`;
}

function outdated(): DomainError {
  return refused(
    "FINDING_OUTDATED",
    "The host shows something else by now, or work on the pod is under way; look again.",
  );
}

function refused(code: string, message: string, details: Readonly<Record<string, unknown>> = {}): DomainError {
  return new DomainError("wrong-state", code, message, { details });
}
