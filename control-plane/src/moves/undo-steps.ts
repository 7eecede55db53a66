import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { sql } from "../platform/sql.ts";
import { observationOf } from "../pods/command-steps.ts";
import { containerSpecOf } from "../pods/container-spec.ts";
import { releaseClaim } from "../scheduling/change-claim.ts";
import { notNeeded, type FinishedCommand, type Step, type StepContext, type StepOutcome } from "../tasks/saga.ts";
import { powerTimeoutMs, shutdownTimeoutSeconds } from "./forward-steps.ts";
import { noteInstants, type Move } from "./move.ts";
import { isOnline, moveContext, moveStep } from "./move-steps.ts";
import { noteDowntime } from "./note-downtime.ts";
import { deleteAttemptsMax, isNothingOfOurs, keepArchive } from "./switch-steps.ts";

/** An hour of a host that answers with faults that may pass. */
const attemptsMax = 60;
/** A day: the archive is all that there is of the pod. */
const freedAttemptsMax = 24 * 60;
const copyTimeoutMs = 240 * 60_000;

/** What belongs to the target is not taken back; neither is what nobody began or what no host has heard of. */
const isBack = (move: Move): boolean =>
  move.switchedAt === null && move.state === "moving" && move.begunAt !== null && move.sourceWasTold;
const mayHoldHalf = (move: Move): boolean => move.restoreAskedAt !== null && move.targetClearedAt === null;
const mayRunOnTarget = (move: Move): boolean => move.startAskedAt !== null && move.strategy !== "cluster-migrate";

/**
 * Only where the source had to give the container up before the target could have it. Where the target has made its half
 * before it fell silent the cluster's entry is there: nothing is restored until the target has taken it away.
 */
export const undoFreeStep: Step = {
  name: "undo-free-id",
  percent: 50,
  attemptsMax: freedAttemptsMax,
  async begin(context) {
    const { tx, task, move } = await moveContext(context);
    const first = task.attempts > 0 && mayHoldHalf(move) && (await isOnline(tx, move.toNodeId)) ? removal : restoring;
    return await first.begin(context);
  },
  async resume(context, command) {
    const { tx, move } = await moveContext(context);
    const [asked] = await tx.query<{ nodeId: string }>(
      sql`SELECT node_id AS "nodeId" FROM node_commands WHERE id = ${command.id}`,
    );
    if (asked?.nodeId !== move.toNodeId) return await resumed(restoring, context, command);
    const outcome = await resumed(undoTargetStep, context, command);
    // Gone now, and its own turn comes with the next try.
    if (outcome.kind !== "done") return outcome;
    return { kind: "retry", code: "CONTAINER_MISSING", message: outcome.message ?? "The container is gone" };
  },
};

/** What a host refuses a restore over a container for, before it does anything to it. */
const notReplaced: ReadonlySet<string> = new Set(["STORAGE_FULL", "MORE_THAN_A_POD"]);

const restoring = moveStep({
  name: "undo-free-id",
  percent: 50,
  at: "source",
  waitingFor: "Restoring the container where it was",
  applies: (move) => isBack(move) && move.sourceFreedAt !== null,
  wish: (pod, move) => ({
    op: {
      $case: "restore",
      value: { volumeId: move.archiveVolumeId ?? "", spec: containerSpecOf(pod), overwrite: true, takeOverFrom: "" },
    },
    timeoutMs: copyTimeoutMs,
  }),
  async onSuccess({ tx, move }) {
    await tx.execute(
      sql`UPDATE cloud_pod_moves SET source_freed_at = NULL, source_removed_at = NULL WHERE id = ${move.id}`,
    );
    return { kind: "done", message: "The container is back" };
  },
  async onFailure({ tx, move }, command) {
    const { errorCode } = command;
    // It was not given up after all, and the host does not replace it: it is what it was.
    if (notReplaced.has(errorCode ?? "") && observationOf(command)?.podId === move.podId) {
      await tx.execute(sql`UPDATE cloud_pod_moves SET source_freed_at = NULL WHERE id = ${move.id}`);
      return { kind: "done", message: "The container was not given up" };
    }
    // The archive is all that there is of the pod: its evacuation brings it back from there.
    if (errorCode === "NODE_EVACUATED")
      return await Promise.resolve({ kind: "done", message: `${move.fromNode} was given up; the archive stays` });
    if (errorCode !== "ON_OTHER_NODE" || !mayHoldHalf(move)) return undefined;
    return { kind: "retry", code: errorCode, message: `${move.toNode} holds the container's entry in the cluster` };
  },
});

/**
 * The pod is what it was on its old host. At once when the target's copy was never told to run, else only after that
 * is gone: two must never run. A container that Proxmox has moved although the migration failed is found so.
 */
function undoStart(name: string, applies: (move: Move) => boolean): Step {
  return moveStep({
    name,
    percent: 50,
    attemptsMax,
    at: "source",
    waitingFor: "Bringing the container back to what it was",
    applies: (move) => isBack(move) && !move.foundOnTarget && applies(move),
    wish: (_, { runs }) => ({
      op: {
        $case: "ensurePower",
        value: { power: runs ? Power.POWER_RUNNING : Power.POWER_STOPPED, shutdownTimeoutSeconds },
      },
      timeoutMs: powerTimeoutMs,
    }),
    async onSuccess({ tx, move, now }) {
      const away = move.runs ? await noteDowntime(tx, move, now, null) : "";
      return { kind: "done", message: `The pod is on ${move.fromNode} as before${away}` };
    },
    async onFailure({ tx, move }, command) {
      if (command.errorCode === "ON_OTHER_NODE" && move.strategy === "cluster-migrate") {
        await tx.execute(sql`UPDATE cloud_pod_moves SET found_on_target = true WHERE id = ${move.id}`);
        return { kind: "done", message: `Proxmox has moved the container to ${move.toNode}` };
      }
      return {
        kind: "retry",
        code: command.errorCode ?? command.state.toUpperCase(),
        message: command.errorMessage ?? command.state,
      };
    },
  });
}

export const undoStartFirstStep = undoStart(
  "undo-stop",
  (move) => !mayRunOnTarget(move) && (move.sourceFreedAt === null || !move.isInCluster),
);
export const undoStartLastStep = undoStart(
  "undo-start",
  (move) => mayRunOnTarget(move) || (move.strategy === "backup-restore" && move.isInCluster),
);

/** The half that was made on the target goes. A target that is away and was never told to start it is cleared later. */
export const undoTargetStep: Step = {
  name: "undo-restore",
  percent: 40,
  attemptsMax,
  async begin(context) {
    const { tx, move } = await moveContext(context);
    const isNeeded =
      move.switchedAt === null &&
      move.state === "moving" &&
      move.restoreAskedAt !== null &&
      move.strategy !== "cluster-migrate";
    if (!isNeeded) return notNeeded;
    if (!mayRunOnTarget(move) && !(await isOnline(tx, move.toNodeId)))
      return { kind: "done", message: `${move.toNode} is away; what it holds goes when it is back` };
    return await removal.begin(context);
  },
  resume: async (context, command) => {
    if (isNothingOfOurs(command.errorCode ?? "")) {
      const { tx, move, now } = await moveContext(context);
      await noteInstants(tx, move.id, now, "target-cleared");
      return { kind: "done", message: "There is no copy" };
    }
    return await resumed(removal, context, command);
  },
};

async function resumed(step: Step, context: StepContext, command: FinishedCommand): Promise<StepOutcome> {
  const outcome = await step.resume?.(context, command);
  return outcome ?? { kind: "retry", code: "COMMAND_LOST", message: "The command is gone" };
}

const removal = moveStep({
  name: "undo-restore",
  percent: 40,
  at: "target",
  waitingFor: "Removing the copy on the target",
  applies: () => true,
  wish: () => ({ op: { $case: "ensureAbsent", value: { volumes: [] } }, timeoutMs: 600_000 }),
  async onSuccess({ tx, move, now }) {
    await noteInstants(tx, move.id, now, "target-cleared");
    return { kind: "done", message: "The copy on the target is gone" };
  },
  onFailure: async (_, command) =>
    await Promise.resolve({
      kind: "retry",
      code: command.errorCode ?? command.state.toUpperCase(),
      message: command.errorMessage ?? `The host answered ${command.state}`,
    }),
});

/** The archive of the move is of no more use. */
export const undoArchiveStep: Step = moveStep({
  name: "undo-backup",
  percent: 20,
  attemptsMax: deleteAttemptsMax,
  at: "source",
  waitingFor: "Deleting the archive of the move",
  applies: (move) => isBack(move) && move.archiveVolumeId !== null && move.archiveIsOurs && move.sourceFreedAt === null,
  wish: (_, move) => ({
    op: { $case: "deleteBackup", value: { volumeId: move.archiveVolumeId ?? "" } },
    timeoutMs: 600_000,
  }),
  async onSuccess({ tx, move, now }) {
    await noteInstants(tx, move.id, now, "archive-removed");
    return { kind: "done", message: "The archive is deleted" };
  },
  onFailure: keepArchive,
});

/** The room on the target is free again, unless something of the pod may still lie there. */
export const undoReserveStep: Step = {
  name: "undo-check",
  percent: 0,
  attemptsMax: 10,
  async begin(context) {
    const { tx, pod, move } = await moveContext(context);
    if (move.switchedAt !== null || move.foundOnTarget) return { kind: "done", message: "The pod is there" };
    if (mayHoldHalf(move) && move.strategy !== "cluster-migrate")
      return { kind: "done", message: `${move.toNode} keeps the room until its copy is gone` };
    await releaseClaim(tx, pod.id, move.toGeneration);
    return { kind: "done", message: `The room on ${move.toNode} is free again` };
  },
};
