import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import type { OpenCommand, Step, StepOutcome } from "../tasks/saga.ts";
import type { Move } from "./move.ts";
import type { MoveContext } from "./move-steps.ts";

/** So long a target may be silent while a pod stands still for it; longer than an agent or a replica restarts. */
const silenceSeconds = 120;
/** Where the source has given its container up: the way back is to read the archive once more. */
const freedSilenceSeconds = 600;

/** Within that a host that is on its way to be offline is so: of heartbeats every ten seconds three may be missed. */
const shakenSeconds = 60;

/** What a host's state makes of it as a target, by its row `s`: `good`, `shaken` for a moment, or `bad`, as one that stays degraded. */
export const targetSteadiness: Sql = sql`(
  CASE WHEN s.state = 'online' THEN 'good' WHEN s.state = 'degraded' AND s.state_since > now() - ${shakenSeconds} * interval '1 s' THEN 'shaken' ELSE 'bad' END)`;

/** A target with what is claimed for the pod there. */
interface Target {
  readonly schedulable: boolean;
  readonly state: string;
  readonly steadiness: "good" | "shaken" | "bad";
  readonly hasQuorum: boolean;
  readonly fits: boolean;
}

type Failure = Extract<StepOutcome, { kind: "fail" }>;

/**
 * Why a pod cannot set out for its target; undefined: it can. A target that is shaken is waited for, and nothing is done
 * to the pod meanwhile.
 */
export async function departureFault(
  tx: Queryable,
  pod: Pod,
  move: Move,
): Promise<Failure | Extract<StepOutcome, { kind: "retry" }> | undefined> {
  const target = await readTarget(tx, pod, move);
  const fault = faultOf(target, move);
  if (fault !== undefined || target === undefined || target.steadiness === "good") return fault;
  const kind = target.steadiness === "shaken" ? "retry" : "fail";
  return { kind, code: "TARGET_NOT_ONLINE", message: `${move.toNode} is ${target.state}` };
}

async function readTarget(tx: Queryable, pod: Pod, move: Move): Promise<Target | undefined> {
  const [target] = await tx.query<Target>(sql`
    SELECT n.schedulable AND n.removed_at IS NULL AS schedulable, s.state, ${targetSteadiness} AS steadiness, s.quorate IS NOT FALSE AS "hasQuorum",
      k.cpu = ${pod.cores} AND k.memory_mb = ${pod.memoryMb} AND (k.disk_gb = ${pod.diskGb} OR k.disk_gb = 0 AND EXISTS (
        SELECT FROM node_claims o WHERE o.pod_id = k.pod_id AND o.generation = ${move.fromGeneration} AND o.storage_id = k.storage_id)) AS fits
    FROM node_claims k JOIN nodes n ON n.id = k.node_id JOIN node_status s ON s.node_id = n.id
    WHERE k.pod_id = ${pod.id} AND k.generation = ${move.toGeneration}`);
  return target;
}

/** Why the claimed place cannot be taken; undefined: it can, as far as is known of a host that may be degraded. */
function faultOf(target: Target | undefined, move: Move): Failure | undefined {
  const fault = (code: string, message: string) => ({ kind: "fail", code, message }) as const;
  if (target === undefined) return fault("CLAIM_LOST", "The place is not claimed any more");
  if (!target.schedulable) return fault("TARGET_CORDONED", `${move.toNode} is cordoned`);
  if (!["online", "degraded"].includes(target.state))
    return fault("TARGET_NOT_ONLINE", `${move.toNode} is ${target.state}`);
  if (!target.hasQuorum)
    return fault("TARGET_WITHOUT_QUORUM", `${move.toNode} has no quorum: nothing can be made there`);
  return target.fits ? undefined : fault("CLAIM_OUTDATED", "The pod has another size than its place was claimed for");
}

/** A move may wait for a turn of its source for hours: no pod is stopped for a place that is no good any more. */
export async function watchPlace(
  { tx, pod, move }: MoveContext,
  { state }: OpenCommand,
): ReturnType<NonNullable<Step["watch"]>> {
  return state === "running" ? undefined : faultOf(await readTarget(tx, pod, move), move);
}

/** A target that is gone is not waited for as long as nothing of the pod can run there: the pod goes on where it was. */
export async function watchTarget({ tx, move }: MoveContext): ReturnType<NonNullable<Step["watch"]>> {
  const isFreed = move.sourceFreedAt !== null && move.isInCluster;
  return await goneTarget(tx, move, isFreed ? freedSilenceSeconds : silenceSeconds);
}

/** Why nothing more is to be tried with the target: it is offline, and has been for so long. Undefined: it is not. */
export async function goneTarget(tx: Queryable, move: Move, forSeconds: number): Promise<Failure | undefined> {
  const gone = await tx.query(sql`
    SELECT FROM node_status WHERE node_id = ${move.toNodeId} AND state IN ('offline', 'lost', 'removed')
      AND state_since <= now() - ${forSeconds} * interval '1 s'`);
  if (gone.length === 0) return undefined;
  return { kind: "fail", code: "TARGET_NOT_ONLINE", message: `${move.toNode} does not answer any more` };
}
