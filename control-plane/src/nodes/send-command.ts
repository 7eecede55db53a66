import { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What a host is told to do. Commands about the host itself name no tenant, pod or task. */
export interface NewCommand {
  readonly nodeId: string;
  readonly tenantId?: string;
  readonly podId?: string;
  readonly vmid?: number;
  /** The task that waits for the result. */
  readonly taskId?: string;
  /** Of the pod's placement; 0 for commands about the host. */
  readonly generation: bigint;
  /** Of the wish, raised in the same transaction; 0 for commands about the host. */
  readonly revision: bigint;
  /** How long after receipt a deed may still start; absent = no limit. */
  readonly ttlMs?: number;
  /** How long the execution may take; absent = the agent's default. */
  readonly timeoutMs?: number;
  readonly op: NonNullable<Command["op"]>;
}

/**
 * Writes a command in the transaction of the change that wants it, under either login. After the commit
 * send the hint `node_commands` with the node's id; without it the command leaves with the slow poll.
 * @returns the command's id.
 */
export async function insertCommand(tx: Queryable, command: NewCommand): Promise<string> {
  const id = newId();
  const message = Command.fromPartial({
    commandId: id,
    podId: command.podId ?? "",
    vmid: command.vmid ?? 0,
    generation: command.generation,
    revision: command.revision,
    ttlMs: BigInt(command.ttlMs ?? 0),
    timeoutMs: BigInt(command.timeoutMs ?? 0),
    op: command.op,
  });
  // The epoch is the database's own, read by the statement that writes it.
  await tx.execute(sql`
    INSERT INTO node_commands (id, node_id, tenant_id, pod_id, task_id, op, command, fleet_epoch, generation, revision)
    SELECT ${id}, ${command.nodeId}, ${command.tenantId ?? null}::uuid, ${command.podId ?? null}::uuid, ${command.taskId ?? null}::uuid,
      ${operationName(command.op)}, jsonb_set(${JSON.stringify(Command.toJSON(message))}::jsonb, '{fleetEpoch}', to_jsonb(epoch::text)),
      epoch, ${command.generation}, ${command.revision}
    FROM control_plane_epoch`);
  return id;
}

/** Name of an operation as in the protocol and in the capabilities of agents, e.g. "ensure_container". */
export function operationName(op: NonNullable<Command["op"]>): string {
  return op.$case.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
