import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { failureOf, sendWish, type Wish } from "../pods/command-steps.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import {
  notNeeded,
  type FinishedCommand,
  type OpenCommand,
  type Step,
  type StepContext,
  type StepOutcome,
} from "../tasks/saga.ts";
import { lockMove, type Move } from "./move.ts";

/** A step's transaction with both rows locked. */
export interface MoveContext extends StepContext {
  readonly pod: Pod;
  readonly move: Move;
}

/** Which of the two hosts is asked. */
type Side = "source" | "target";

/** One thing that is asked of one of the two hosts of a move. */
export interface MoveStep {
  readonly name: string;
  readonly percent: number;
  /** Tries for reasons that may pass. */
  readonly attemptsMax?: number;
  readonly waitingFor: string;
  readonly at: Side;
  /** Whether this move needs it; what is not needed is done. */
  readonly applies: (move: Move) => boolean;
  readonly wish: (pod: Pod, move: Move) => Wish;
  /** Written down in the transaction that sends the command: it may have had its effect from then on. */
  readonly before?: (context: MoveContext) => Promise<void>;
  readonly onSuccess: (context: MoveContext, command: FinishedCommand) => Promise<StepOutcome>;
  /** As of a step. */
  readonly watch?: (context: MoveContext, command: OpenCommand) => ReturnType<NonNullable<Step["watch"]>>;
  /** What a failure means; undefined: what it means everywhere. */
  readonly onFailure?: (context: MoveContext, command: FinishedCommand) => Promise<StepOutcome | undefined>;
}

/** With the backoff of tasks about ten minutes. */
const attemptsMax = 12;

/** The move that a task carries out. */
export function moveIdOf(task: { readonly input: Readonly<Record<string, unknown>> }): string {
  const { moveId } = task.input;
  if (typeof moveId !== "string") throw new Error("a task of a move names none");
  return moveId;
}

/** Locks pod and move of a task, in the order of everybody who needs both. */
export async function moveContext(context: StepContext): Promise<MoveContext> {
  const pod = await lockPodById(context.tx, context.task.podId);
  return { ...context, pod, move: await lockMove(context.tx, moveIdOf(context.task)) };
}

/** A step that asks a host; it is sent once and answered once, and the move's row tells how far things may be. */
export function moveStep(options: MoveStep): Step & { readonly resume: NonNullable<Step["resume"]> } {
  const { watch } = options;
  return {
    name: options.name,
    percent: options.percent,
    attemptsMax: options.attemptsMax ?? attemptsMax,
    async begin(context) {
      const here = await moveContext(context);
      const { tx, task, pod, move } = here;
      if (!options.applies(move)) return notNeeded;
      if (move.state !== "moving") return { kind: "fail", code: "MOVE_OVER", message: `The move is ${move.state}` };
      await options.before?.(here);
      const sent = await sendWish(tx, pod, task.id, options.wish(pod, move), addressOf(pod, move, options.at));
      return { kind: "wait", ...sent, message: options.waitingFor };
    },
    ...(watch === undefined
      ? {}
      : { watch: async (context, command) => await watch(await moveContext(context), command) }),
    async resume(context, command) {
      const here = await moveContext(context);
      if (command.state === "succeeded") return await options.onSuccess(here, command);
      return (await options.onFailure?.(here, command)) ?? failureOf(command);
    },
  };
}

/**
 * The source hears of its pod under the generation of its place until the switch, and under the one in force after it:
 * with that every wish of its former place is refused there for good, whatever comes late.
 */
function addressOf(pod: Pod, move: Move, side: Side): { nodeId: string; generation: bigint } {
  if (side === "target") return { nodeId: move.toNodeId, generation: move.toGeneration };
  return { nodeId: move.fromNodeId, generation: move.switchedAt === null ? move.fromGeneration : pod.generation };
}

/** Whether a host answers at present, as far as is known. */
export async function isOnline(tx: Queryable, nodeId: string): Promise<boolean> {
  const rows = await tx.query(sql`
    SELECT FROM node_status WHERE node_id = ${nodeId} AND state IN ('online', 'degraded') AND session_connected`);
  return rows.length > 0;
}
