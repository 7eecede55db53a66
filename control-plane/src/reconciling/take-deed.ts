import type { FindingKind } from "@cloudpods/shared/finding-kinds";
import { Power, type Command, type ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { insertCommand } from "../nodes/send-command.ts";
import { appendNodeEvents } from "../nodes/node-events.ts";
import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { volumesAmong } from "../pods/extra-volumes.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { createWish } from "../pods/provision-pod.saga.ts";
import { systemActor, type Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { AutomaticDeed } from "./finding.ts";
import type { KnownPod } from "./known-pod.ts";
import { readComparison, readMayAct, type ReadComparison } from "./read-comparison.ts";
import { reconcile, type Deed, type Rules } from "./reconcile.ts";

/** A guest is given no time: another copy of it is the right one. */
const stopTimeoutMs = 180_000;
/** A destroy waits for the guest to stop and for the storage to free the volumes. */
const removeTimeoutMs = 600_000;

/**
 * Does what a comparison found due, if it still is once the pod is locked: whoever works on a pod locks it first.
 * @returns the host to be told; undefined when it is not due any more
 */
export async function takeDeed(
  db: Database,
  nodeId: string,
  deed: Deed,
  rules: Omit<Rules, "mayAct">,
): Promise<string | undefined> {
  return await db.transaction(async (tx) => {
    const pod = await lockPodById(tx, deed.podId);
    const comparison = await readComparison(tx, nodeId);
    if (comparison === undefined) return undefined;
    const { deeds } = reconcile(comparison, { ...rules, mayAct: await readMayAct(tx) });
    if (!deeds.some((due) => due.deed === deed.deed && due.kind === deed.kind && due.vmid === deed.vmid))
      return undefined;
    const finding = comparison.history.find(({ vmid, kind }) => vmid === deed.vmid && kind === deed.kind);
    if (finding === undefined) return undefined;
    await sendDeed(tx, pod, comparison, deed, { id: finding.id, by: systemActor("reconciler"), requestId: undefined });
    return nodeId;
  });
}

/** Which finding a command is for, and who wants it. */
export interface DeedOrder {
  readonly id: string;
  readonly by: Actor;
  readonly requestId: string | undefined;
}

/** Writes the command of a deed about a pod that we know and notes it with the finding. The pod is locked. */
export async function sendDeed(
  tx: Queryable,
  pod: Pod,
  comparison: ReadComparison,
  { deed, vmid, kind }: { readonly deed: AutomaticDeed; readonly vmid: number; readonly kind: FindingKind },
  order: DeedOrder,
): Promise<string> {
  const seen = comparison.containers.find((container) => container.vmid === vmid);
  const known = comparison.pods.find(({ id }) => id === pod.id);
  const [row] = await tx.query<{ revision: bigint }>(
    sql`UPDATE cloud_pods SET revision = revision + 1 WHERE id = ${pod.id} RETURNING revision`,
  );
  if (row === undefined || known === undefined) throw new Error(`pod ${pod.id} vanished`);
  const { op, timeoutMs } = operationOf(deed, pod, seen);
  const commandId = await insertCommand(tx, {
    nodeId: comparison.nodeId,
    tenantId: pod.tenantId,
    podId: pod.id,
    vmid,
    generation: generationOf(deed, known, seen),
    revision: row.revision,
    timeoutMs,
    op,
  });
  await noteDeed(tx, comparison.nodeId, { deed, vmid, kind, podId: pod.id, commandId, tenantId: pod.tenantId }, order);
  return commandId;
}

/**
 * A stop marks the container with its generation: with a newer one than it has a stale copy would pass for the pod. A
 * removal carries the highest that was ever told or seen, which no host can refuse and every later placement is above.
 */
function generationOf(deed: AutomaticDeed, pod: KnownPod, seen: ContainerObservation | undefined): bigint {
  const marked = seen?.generation ?? 0n;
  if (deed === "remove") return marked > pod.highestGeneration ? marked : pod.highestGeneration;
  return deed === "stop" && seen !== undefined ? seen.generation : pod.generation;
}

function operationOf(
  deed: AutomaticDeed,
  pod: Pod,
  seen: ContainerObservation | undefined,
): { op: NonNullable<Command["op"]>; timeoutMs: number } {
  switch (deed) {
    case "stop": {
      const value = { power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 0 };
      return { op: { $case: "ensurePower", value }, timeoutMs: stopTimeoutMs };
    }
    case "remove":
      return { op: absent(seen?.partsOfNoPod ?? []), timeoutMs: removeTimeoutMs };
    case "repair":
      return createWish(pod);
  }
}

/** Gone with what the finding shows, and with nothing that came after it. */
function absent(partsOfNoPod: readonly string[]): NonNullable<Command["op"]> {
  return { $case: "ensureAbsent", value: { volumes: volumesAmong(partsOfNoPod) } };
}

/** Removes a container with the mark of a pod that nobody knows; only when an operator says so. */
export async function removeUnknown(
  tx: Queryable,
  nodeId: string,
  container: Pick<ContainerObservation, "vmid" | "podId" | "generation" | "partsOfNoPod"> & {
    readonly kind: FindingKind;
  },
  order: DeedOrder,
  now: Date,
): Promise<string> {
  const { vmid, podId, generation, partsOfNoPod, kind } = container;
  const commandId = await insertCommand(tx, {
    nodeId,
    podId,
    vmid,
    generation,
    // Nobody counts the wishes for this pod any more; the clock is above every count.
    revision: BigInt(now.getTime()),
    timeoutMs: removeTimeoutMs,
    op: absent(partsOfNoPod),
  });
  await noteDeed(tx, nodeId, { deed: "remove", vmid, kind, podId, commandId, tenantId: undefined }, order);
  return commandId;
}

async function noteDeed(
  tx: Queryable,
  nodeId: string,
  done: {
    readonly deed: AutomaticDeed;
    readonly vmid: number;
    readonly kind: FindingKind;
    readonly podId: string;
    readonly commandId: string;
    readonly tenantId: string | undefined;
  },
  { id, by, requestId }: DeedOrder,
): Promise<void> {
  const { deed, vmid, kind, podId, commandId, tenantId } = done;
  await tx.execute(sql`
    UPDATE node_findings SET attempts = CASE WHEN action = ${deed} THEN attempts + 1 ELSE 1 END, action = ${deed},
      action_by = ${`${by.kind}:${by.id}`}, acted_at = now(), command_id = ${commandId} WHERE id = ${id}`);
  await recordAudit(tx, {
    actor: by,
    requestId,
    tenantId,
    action: `finding.${deed}`,
    targetType: "container",
    targetId: podId,
    detail: { nodeId, vmid, kind, findingId: id, commandId },
  });
  const message = `${kind}: container ${vmid} is told to ${deed}`;
  await appendNodeEvents(tx, [{ nodeId, kind: "RECONCILED", message, detail: { deed, vmid, kind, podId, by: by.id } }]);
}
