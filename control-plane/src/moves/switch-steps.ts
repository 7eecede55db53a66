import { isSilent, wasHeardSinceGivenUp } from "../nodes/host-silence.ts";
import { sql } from "../platform/sql.ts";
import { failureOf, sendWish } from "../pods/command-steps.ts";
import { releaseClaim } from "../scheduling/change-claim.ts";
import { notNeeded, type FinishedCommand, type Step, type StepContext, type StepOutcome } from "../tasks/saga.ts";
import { noteInstants, type Move } from "./move.ts";
import { isOnline, moveContext, moveStep, type MoveContext } from "./move-steps.ts";
import { switchPlace } from "./switch-place.ts";

const removeTimeoutMs = 600_000;
export const deleteAttemptsMax = 6;

/**
 * The target becomes the owner of the pod.
 * - A move from a living host switches when the copy runs: until then nothing is given up.
 * - From a host that is gone it switches before the copy starts, so that the host, should it come back, hears first that
 *   the pod is no longer its own. A configuration that is taken over changes hands in Proxmox: it switches before that.
 */
function switchStep(name: string, percent: number, applies: (move: Move) => boolean): Step {
  return {
    name,
    percent,
    attemptsMax: 10,
    async begin(context) {
      const { tx, task, now, pod, move } = await moveContext(context);
      if (!applies(move) || move.switchedAt !== null) return notNeeded;
      if (move.state !== "moving") return { kind: "fail", code: "MOVE_OVER", message: `The move is ${move.state}` };
      if (move.purpose === "evacuate" && !(await isStillGone(context, move.fromNodeId)))
        return { kind: "fail", code: "NODE_RETURNED", message: `${move.fromNode} is back and keeps its pod` };
      await switchPlace(tx, pod, move, now, task.requestId);
      return { kind: "done", message: `The pod belongs to ${move.toNode}` };
    },
  };
}

/**
 * Nothing was heard of the host since it was given up: a word that it is cut off does not outlive its return, silent again
 * as it may be. Held until the switch is committed: a session that begins meanwhile waits and is then told of it.
 */
async function isStillGone({ tx }: StepContext, nodeId: string): Promise<boolean> {
  const rows = await tx.query(sql`
    SELECT FROM node_status s JOIN node_drains d ON d.node_id = s.node_id AND d.kind = 'evacuation' AND d.finished_at IS NULL
    WHERE s.node_id = ${nodeId} AND ${isSilent} AND NOT ${wasHeardSinceGivenUp} FOR SHARE OF s`);
  return rows.length > 0;
}

export const takeOverSwitchStep = switchStep("own", 50, ({ strategy }) => strategy === "take-over");
export const restoredSwitchStep = switchStep("own-restored", 80, ({ strategy }) => strategy === "restore-newest");
export const runningSwitchStep = switchStep("switch", 90, () => true);

/** Nothing is left of the pod on a source that gave it up. A source that does not answer is cleared when it is back. */
export const removeStep: Step = {
  name: "remove",
  percent: 93,
  attemptsMax: 12,
  async begin(context) {
    const { tx, task, pod, move } = await moveContext(context);
    if (move.strategy !== "backup-restore" || move.sourceRemovedAt !== null) return notNeeded;
    if (!(await isOnline(tx, move.fromNodeId)))
      return { kind: "done", message: `${move.fromNode} is away; its copy goes when it is back` };
    const sent = await sendWish(
      tx,
      pod,
      task.id,
      { op: { $case: "ensureAbsent", value: { volumes: [] } }, timeoutMs: removeTimeoutMs },
      // In force there from now on: every wish of the former place is older than this.
      { nodeId: move.fromNodeId, generation: pod.generation },
    );
    return { kind: "wait", ...sent, message: `Removing the copy on ${move.fromNode}` };
  },
  async resume(context, command) {
    const { tx, now, move } = await moveContext(context);
    const code = command.errorCode ?? command.state.toUpperCase();
    if (command.state === "succeeded" || isNothingOfOurs(code)) {
      await noteInstants(tx, move.id, now, "source-removed");
      return { kind: "done", message: `Nothing is left on ${move.fromNode}` };
    }
    const message = command.errorMessage ?? `The host answered ${command.state}`;
    // The pod is where it shall be: what is left behind is no reason to call the move a failure.
    if (context.task.attempts + 1 >= removeStep.attemptsMax)
      return { kind: "done", message: `${message}; its copy goes later` };
    return { kind: "retry", code, message };
  },
};

/** The id is somebody else's, or the container is with another member of the cluster: here is nothing to remove. */
export function isNothingOfOurs(code: string): boolean {
  return code === "VMID_CONFLICT" || code === "ON_OTHER_NODE";
}

/** The archive was for the move only. */
export const forgetStep: Step = moveStep({
  name: "forget-archive",
  percent: 96,
  at: "target",
  attemptsMax: deleteAttemptsMax,
  waitingFor: "Deleting the archive of the move",
  applies: (move) => move.archiveVolumeId !== null && move.archiveIsOurs,
  wish: (_, move) => ({
    op: { $case: "deleteBackup", value: { volumeId: move.archiveVolumeId ?? "" } },
    timeoutMs: removeTimeoutMs,
  }),
  async onSuccess({ tx, move, now }) {
    await noteInstants(tx, move.id, now, "archive-removed");
    return { kind: "done", message: "The archive is deleted" };
  },
  onFailure: keepArchive,
});

/** An archive that cannot be deleted is untidy; the pod is where it shall be all the same. */
export async function keepArchive({ task }: MoveContext, command: FinishedCommand): Promise<StepOutcome | undefined> {
  const mayPass = failureOf(command).kind === "retry" && task.attempts + 1 < deleteAttemptsMax;
  const message = `The archive could not be deleted: ${command.errorCode ?? command.state}`;
  return await Promise.resolve(mayPass ? undefined : { kind: "done", message });
}

/** The room on the source is free, if its host said that the container is gone. */
export const releaseStep: Step = {
  name: "release",
  percent: 98,
  attemptsMax: 10,
  async begin(context) {
    const { tx, pod, move } = await moveContext(context);
    const hasNone = move.strategy === "cluster-migrate" || move.sourceRemovedAt !== null;
    if (!hasNone) return { kind: "done", message: `${move.fromNode} keeps the room until its copy is gone` };
    await releaseClaim(tx, pod.id, move.fromGeneration);
    return { kind: "done", message: `The room on ${move.fromNode} is free` };
  },
};
