import {
  BackupObservation,
  CommandOutcome,
  ContainerObservation,
  MoveObservation,
  type CommandAccepted,
  type CommandProgress,
  type CommandResult,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { recordObservations, type InventoryHooks } from "../nodes/record-inventory.ts";
import { holdSession, type SessionRef } from "../nodes/session-fence.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What other parts want to know in the transaction that stores it. */
export interface ReportHooks extends InventoryHooks {
  readonly onProgress: (
    tx: Transaction,
    progress: { readonly commandId: string; readonly step: string; readonly percent: number; readonly detail: string },
  ) => Promise<void>;
}

/**
 * What became of a result. `stored`: the command has ended now; `repeated`: it had before; `stale`: it is of
 * another placement; `unknown`: this node was never told so.
 */
export type ResultFate = "stored" | "repeated" | "stale" | "unknown";

const stateByOutcome: Readonly<Record<number, string>> = {
  [CommandOutcome.COMMAND_OUTCOME_SUCCEEDED]: "succeeded",
  [CommandOutcome.COMMAND_OUTCOME_FAILED]: "failed",
  [CommandOutcome.COMMAND_OUTCOME_STALE_GENERATION]: "stale",
  [CommandOutcome.COMMAND_OUTCOME_SUPERSEDED]: "superseded",
  [CommandOutcome.COMMAND_OUTCOME_EXPIRED]: "expired",
  [CommandOutcome.COMMAND_OUTCOME_UNSUPPORTED]: "unsupported",
  [CommandOutcome.COMMAND_OUTCOME_INTERRUPTED]: "interrupted",
  [CommandOutcome.COMMAND_OUTCOME_CANCELLED]: "cancelled",
};

/**
 * Ends a command with what its host says, once, and only for the placement that the command was for.
 * @throws SessionSuperseded
 */
export async function storeResult(
  db: Database,
  session: SessionRef,
  result: CommandResult,
  hooks: InventoryHooks,
): Promise<ResultFate> {
  return await db.transaction(async (tx) => {
    await holdSession(tx, session);
    // An outcome that this release does not know did not reach what was wanted, as far as we can tell.
    const state = stateByOutcome[result.outcome] ?? "failed";
    const { observation, backup, move } = result;
    const stored = await tx.query(sql`
      UPDATE node_commands SET state = ${state}, finished_at = now(), percent = CASE WHEN ${state === "succeeded"} THEN 100 ELSE percent END,
        error_code = ${result.error?.code ?? null}, error_message = ${result.error?.message ?? null}, retryable = ${result.error?.retryable ?? null},
        observation = ${observation === undefined ? null : JSON.stringify(ContainerObservation.toJSON(observation))},
        backup = ${backup === undefined ? null : JSON.stringify(BackupObservation.toJSON(backup))},
        move = ${move === undefined ? null : JSON.stringify(MoveObservation.toJSON(move))},
        command_lines = ${result.commandLines},
        -- Nobody is told it again, and customers' keys shall not outlive their use.
        command = command #- '{ensureContainer,spec,sshAuthorizedKeys}' #- '{restore,spec,sshAuthorizedKeys}'
      WHERE id = ${result.commandId} AND node_id = ${session.nodeId} AND generation = ${result.generation} AND finished_at IS NULL
      RETURNING id`);
    if (stored.length === 0) return await fateOfLeftOut(tx, session, result);
    if (observation !== undefined && observation.podId !== "") {
      await recordObservations(tx, session.nodeId, [observation], Number(result.finishedAtMs), hooks);
    }
    return "stored";
  });
}

async function fateOfLeftOut(tx: Transaction, session: SessionRef, result: CommandResult): Promise<ResultFate> {
  const [command] = await tx.query<{ generation: bigint }>(sql`
    SELECT generation FROM node_commands WHERE id = ${result.commandId} AND node_id = ${session.nodeId}`);
  if (command === undefined) return "unknown";
  return command.generation === result.generation ? "repeated" : "stale";
}

/** Notes that the command is durable on the host. @throws SessionSuperseded */
export async function storeAccepted(db: Database, session: SessionRef, accepted: CommandAccepted): Promise<void> {
  await db.transaction(async (tx) => {
    await holdSession(tx, session);
    await tx.execute(sql`
      UPDATE node_commands SET state = 'accepted', accepted_at = now()
      WHERE id = ${accepted.commandId} AND node_id = ${session.nodeId} AND state IN ('pending', 'sent')`);
  });
}

/** Notes how far a command is. @returns the task that waits for it. @throws SessionSuperseded */
export async function storeProgress(
  db: Database,
  session: SessionRef,
  progress: CommandProgress,
  hooks: ReportHooks,
): Promise<string | undefined> {
  const percent = Math.min(100, progress.percent);
  return await db.transaction(async (tx) => {
    await holdSession(tx, session);
    const [command] = await tx.query<{ taskId: string | null }>(sql`
      UPDATE node_commands SET state = 'running', step = ${progress.step}, percent = greatest(percent, ${percent})
      WHERE id = ${progress.commandId} AND node_id = ${session.nodeId} AND finished_at IS NULL RETURNING task_id AS "taskId"`);
    if (command === undefined || command.taskId === null) return undefined;
    const { commandId, step, detail } = progress;
    await hooks.onProgress(tx, { commandId, step, percent, detail: detail.slice(0, 500) });
    return command.taskId;
  });
}
