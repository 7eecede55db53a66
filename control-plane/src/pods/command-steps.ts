import { ContainerObservation, type Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { insertCommand } from "../nodes/send-command.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { FinishedCommand, Step, StepContext, StepOutcome } from "../tasks/saga.ts";
import { lockPodById, type Pod } from "./pod.ts";

/** Tries of a command that failed for a reason that may pass. With the backoff of tasks about ten minutes. */
const attemptsMax = 12;

/** What is asked of a host, and for how long. */
export interface Wish {
  readonly op: NonNullable<Command["op"]>;
  /** How long the host may work on it. */
  readonly timeoutMs: number;
  /** Deeds only: how late it may still begin after the host received it. */
  readonly ttlMs?: number;
}

/** A host, and the generation under which it hears of a pod. */
export interface Addressee {
  readonly nodeId: string;
  readonly generation: bigint;
}

/**
 * Writes a command for a pod, with a new revision, in the transaction of the change that wants it. It goes to
 * the pod's host, or in a move to the other one.
 * @returns what a step that waits for the command needs
 */
export async function sendWish(
  tx: Queryable,
  pod: Pod,
  taskId: string,
  wish: Wish,
  { nodeId, generation }: { readonly nodeId: string | null; readonly generation: bigint } = pod,
): Promise<{ commandId: string; nodeId: string }> {
  if (nodeId === null) throw new Error(`pod ${pod.id} has no place`);
  const [row] = await tx.query<{ revision: bigint }>(sql`
    UPDATE cloud_pods SET revision = revision + 1 WHERE id = ${pod.id} RETURNING revision`);
  if (row === undefined) throw new Error(`pod ${pod.id} vanished`);
  const commandId = await insertCommand(tx, {
    nodeId,
    tenantId: pod.tenantId,
    podId: pod.id,
    vmid: pod.vmid,
    taskId,
    generation,
    revision: row.revision,
    timeoutMs: wish.timeoutMs,
    ...(wish.ttlMs === undefined ? {} : { ttlMs: wish.ttlMs }),
    op: wish.op,
  });
  return { commandId, nodeId };
}

/** A step that asks the pod's host for something and looks at what came of it. */
export function commandStep(options: {
  readonly name: string;
  readonly percent: number;
  readonly waitingFor: string;
  readonly wish: (pod: Pod) => Wish;
  /** What the success means for the pod; may refuse it by another outcome than done. */
  readonly onSuccess: (context: StepContext, pod: Pod, seen: ContainerObservation | undefined) => Promise<StepOutcome>;
}): Step {
  return {
    name: options.name,
    percent: options.percent,
    attemptsMax,
    async begin(context) {
      const pod = await lockPodById(context.tx, context.task.podId);
      const sent = await sendWish(context.tx, pod, context.task.id, options.wish(pod));
      return { kind: "wait", ...sent, message: options.waitingFor };
    },
    async resume(context, command) {
      if (command.state !== "succeeded") return failureOf(command);
      const pod = await lockPodById(context.tx, context.task.podId);
      return await options.onSuccess(context, pod, observationOf(command));
    },
  };
}

/** What the host saw at the end of a command, or undefined when it saw no container. */
export function observationOf(command: Pick<FinishedCommand, "observation">): ContainerObservation | undefined {
  return command.observation === null ? undefined : ContainerObservation.fromJSON(command.observation);
}

/** How a step goes on after a command that did not succeed: again when that can help. */
export function failureOf(command: FinishedCommand): StepOutcome {
  const code = command.errorCode ?? command.state.toUpperCase();
  const message = command.errorMessage ?? `The host answered ${command.state}`;
  // An interrupted command was looked into by the agent: asking again goes on from what is there.
  const mayPass = command.retryable === true || command.state === "interrupted" || command.state === "superseded";
  return { kind: mayPass ? "retry" : "fail", code, message };
}
