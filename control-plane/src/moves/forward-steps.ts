import { BackupObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { lockBackupOf } from "../backups/backup-of-move.ts";
import type { UsableBackup } from "../backups/backup.ts";
import { isOtherSilent, judgeLook } from "../backups/judge-look.ts";
import { sql } from "../platform/sql.ts";
import { observationOf } from "../pods/command-steps.ts";
import { containerSpecOf, differences } from "../pods/container-spec.ts";
import type { Pod } from "../pods/pod.ts";
import type { FinishedCommand, Step, StepOutcome } from "../tasks/saga.ts";
import { noteInstants, type Move } from "./move.ts";
import { moveContext, moveStep, type MoveContext } from "./move-steps.ts";
import { noteDowntime } from "./note-downtime.ts";
import { beginStay } from "./switch-place.ts";
import { departureFault, watchPlace, watchTarget } from "./watch-target.ts";

const minuteMs = 60_000;
/** Disks of hundreds of GB over a slow network. */
export const copyTimeoutMs = 240 * minuteMs;
/** A host makes one backup at a time: a deed may stand behind another one for as long as that takes. */
const deedTtlMs = copyTimeoutMs;
export const shutdownTimeoutSeconds = 60;
export const powerTimeoutMs = 5 * minuteMs;

const byArchive = (move: Move): boolean => move.strategy === "backup-restore" || move.strategy === "restore-newest";

/** What the container shall be on the target. */
export function targetSpec(pod: Pod, { storage, bridge, pool }: Pick<Move, "storage" | "bridge" | "pool">) {
  return containerSpecOf({ ...pod, storage, bridge, pool });
}

/** Nothing was done to the pod yet: is the place still what was claimed? */
export const checkStep: Step = {
  name: "check",
  percent: 0,
  // Longer than a target counts as shaken.
  attemptsMax: 12,
  async begin(context) {
    const { tx, pod, move } = await moveContext(context);
    if (pod.nodeId !== move.fromNodeId || pod.generation !== move.fromGeneration)
      return { kind: "fail", code: "MOVE_OUTDATED", message: "The pod is not where it was when the move was planned" };
    const fault = await departureFault(tx, pod, move);
    return fault ?? { kind: "done", message: `Has a place on ${move.toNode}` };
  },
};

/**
 * One archive for each move, however often it is asked for. A host makes one at a time: the container is shut down when
 * its turn has come, runs on until then, and stays stopped, so that the archive holds everything that it ever wrote.
 */
export const backupStep = moveStep({
  name: "backup",
  percent: 5,
  at: "source",
  waitingFor: "Waiting for the host to shut the container down and make the archive",
  applies: ({ strategy }) => strategy === "backup-restore",
  wish: (_, move) => ({
    op: { $case: "backup", value: { backupId: move.id, storage: move.archiveStorage ?? "", mode: "shut-down" } },
    timeoutMs: copyTimeoutMs,
    ttlMs: deedTtlMs,
  }),
  before: async ({ tx, move, now }) => await noteInstants(tx, move.id, now, "begun"),
  watch: watchPlace,
  async onSuccess({ tx, move, now }, command) {
    const archive = archiveOf(command);
    if (archive === undefined || !archive.found || archive.volumeId === "")
      return { kind: "retry", code: "ARCHIVE_MISSING", message: "The host made no archive" };
    await noteInstants(tx, move.id, stoppedAt(archive, move, now), "stopped");
    await tx.execute(sql`
      UPDATE cloud_pod_moves SET archive_volume_id = ${archive.volumeId}, archive_made_at = now() WHERE id = ${move.id}`);
    return { kind: "done", message: "The archive is made" };
  },
});

/** An agent that was restarted meanwhile does not know when it began to stop the container, but when the archive was begun. */
function stoppedAt({ stoppedAtMs, createdAtMs }: BackupObservation, { begunAt }: Move, now: Date): Date {
  const told = Number(stoppedAtMs > 0n ? stoppedAtMs : createdAtMs);
  const ms = told > 0 ? told : now.getTime();
  return new Date(Math.min(now.getTime(), Math.max(ms, begunAt?.getTime() ?? ms)));
}

/**
 * Whatever may have started it since: two must never run. What it wrote meanwhile is on the source alone, so the archive is
 * no good any more and the pod stays.
 */
export const stopStep = moveStep({
  name: "stop",
  percent: 35,
  at: "source",
  waitingFor: "Seeing that the container is stopped",
  applies: ({ strategy }) => strategy === "backup-restore",
  wish: () => ({
    op: { $case: "ensurePower", value: { power: Power.POWER_STOPPED, shutdownTimeoutSeconds } },
    timeoutMs: powerTimeoutMs,
  }),
  async onSuccess({ tx, task, pod, move }) {
    const stops = await tx.query(sql`
      SELECT FROM node_commands c, unnest(c.command_lines) line
      WHERE c.pod_id = ${pod.id} AND c.task_id = ${task.id} AND c.node_id = ${move.fromNodeId} AND c.op = 'ensure_power' AND line ~ ' (shutdown|stop) [0-9]+'`);
    if (stops.length === 0) return { kind: "done", message: "The container is stopped" };
    return { kind: "fail", code: "ARCHIVE_OUTDATED", message: "The pod ran again after its archive was made" };
  },
});

/** The target itself reads the archive to its end, before the source loses anything. */
export const verifyStep = moveStep({
  name: "verify",
  percent: 40,
  at: "target",
  waitingFor: "Reading the archive on the target",
  applies: (move) => byArchive(move) || (move.strategy === "take-over" && move.archiveVolumeId !== null),
  wish: (_, move) => ({
    op: { $case: "verifyBackup", value: { volumeId: move.archiveVolumeId ?? "", atOnce: true } },
    timeoutMs: copyTimeoutMs,
  }),
  async watch(context, command) {
    const { tx, move } = context;
    const fault = await watchTarget(context);
    return fault ?? ((await isOtherSilent(tx, command, move.toNodeId)) ? notSeen(move) : undefined);
  },
  async onSuccess(context, command) {
    const { tx, pod, move } = context;
    const backup = await lockBackupOf(tx, pod, move);
    if (backup !== undefined) return await judged(context, backup, command);
    const archive = archiveOf(command);
    if (archive === undefined || !archive.found) return notSeen(move);
    if (!archive.readable)
      return { kind: "fail", code: "ARCHIVE_UNREADABLE", message: `${move.toNode} cannot read the archive to its end` };
    return { kind: "done", message: "The target can read the archive" };
  },
});

const notSeen = ({ toNode }: Move): Extract<StepOutcome, { kind: "fail" }> => ({
  kind: "fail",
  code: "ARCHIVE_NOT_SEEN",
  message: `${toNode} does not see the archive`,
});

/** A customer's backup that is not good is noted as damaged: whoever tries again takes another one. */
async function judged(context: MoveContext, backup: UsableBackup, command: FinishedCommand): Promise<StepOutcome> {
  const { pod, move } = context;
  const verdict = await judgeLook(context, pod, { backup, userNodeId: move.toNodeId }, command);
  switch (verdict.kind) {
    case "good":
      return { kind: "done", message: "The target can read the archive" };
    case "wait":
    case "retry":
      return verdict;
    case "unseen":
      return notSeen(move);
    case "damaged": {
      const fault = verdict.isThere ? "cannot be read to its end" : "is not there any more";
      return {
        kind: "fail",
        code: "BACKUP_DAMAGED",
        message: `The backup of ${backup.startedAt.toISOString()} ${fault}`,
      };
    }
  }
}

/** In a cluster an id is one entry for all members: the archive that was just read is what the pod is until it is restored. */
export const freeIdStep = moveStep({
  name: "free-id",
  percent: 50,
  at: "source",
  waitingFor: "Giving the id free inside the cluster",
  applies: (move) => move.strategy === "backup-restore" && move.isInCluster,
  wish: () => ({ op: { $case: "ensureAbsent", value: { volumes: [] } }, timeoutMs: copyTimeoutMs }),
  // Whether it was done need not be heard: what is undone from here on is restored.
  before: async ({ tx, move, now }) => await noteInstants(tx, move.id, now, "source-freed"),
  async onSuccess({ tx, move, now }) {
    await noteInstants(tx, move.id, now, "source-removed");
    return { kind: "done", message: "The id is free" };
  },
});

/** The container is made on the target and left stopped. */
export const restoreStep = moveStep({
  name: "restore",
  percent: 55,
  at: "target",
  waitingFor: "Restoring the container on the target",
  applies: (move) => byArchive(move) || move.strategy === "take-over",
  wish: (pod, move) => ({
    op: {
      $case: "restore",
      value: {
        volumeId: move.archiveVolumeId ?? "",
        spec: targetSpec(pod, move),
        // Only ever a stopped half of this very move: the target owned nothing of the pod before.
        overwrite: true,
        takeOverFrom: move.strategy === "take-over" ? move.fromPveName : "",
      },
    },
    timeoutMs: copyTimeoutMs,
    ttlMs: deedTtlMs,
  }),
  async before({ tx, pod, move, now }) {
    await noteInstants(tx, move.id, now, "restore-asked");
    await beginStay(tx, pod, move, now);
  },
  watch: watchTarget,
  onSuccess: async ({ pod, move }, command) => await Promise.resolve(compared(pod, move, command)),
});

/** After a migration the container carries the generation of its former place and perhaps another bridge or pool. */
export const confirmStep = moveStep({
  name: "confirm",
  percent: 80,
  at: "target",
  waitingFor: "Looking at the container on the target",
  applies: ({ strategy }) => strategy === "cluster-migrate",
  wish: (pod, move) => ({
    op: { $case: "ensureContainer", value: { spec: targetSpec(pod, move) } },
    timeoutMs: 15 * minuteMs,
  }),
  onSuccess: async ({ pod, move }, command) => await Promise.resolve(compared(pod, move, command)),
});

function compared(pod: Pod, move: Move, command: FinishedCommand): StepOutcome {
  const seen = observationOf(command);
  const wrong = seen === undefined ? ["nothing that it reports"] : differences(pod, seen);
  if (wrong.length > 0)
    return { kind: "retry", code: "CONFIGURATION_DIFFERS", message: `${move.toNode} made ${wrong.join(", ")}` };
  return { kind: "done", message: `The container is on ${move.toNode}, as it was` };
}

/** As it was wanted when the move began: a stopped pod stays stopped. */
export const startStep = moveStep({
  name: "start",
  percent: 85,
  at: "target",
  waitingFor: "Starting the container on the target",
  applies: () => true,
  wish: (_, { runs }) => ({
    op: {
      $case: "ensurePower",
      value: { power: runs ? Power.POWER_RUNNING : Power.POWER_STOPPED, shutdownTimeoutSeconds },
    },
    timeoutMs: powerTimeoutMs,
  }),
  before: async ({ tx, move, now }) => await noteInstants(tx, move.id, now, "start-asked"),
  async onSuccess({ tx, move, now }) {
    if (!move.runs) return { kind: "done", message: "The container is stopped, as it was" };
    await noteInstants(tx, move.id, now, "running");
    const begunAt = move.strategy === "cluster-migrate" ? move.begunAt : null;
    return { kind: "done", message: `The container runs${await noteDowntime(tx, move, now, begunAt)}` };
  },
});

function archiveOf(command: FinishedCommand): BackupObservation | undefined {
  return command.backup === null ? undefined : BackupObservation.fromJSON(command.backup);
}
