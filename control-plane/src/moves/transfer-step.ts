import { MoveObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { sql } from "../platform/sql.ts";
import type { FinishedCommand, Step, StepContext, StepOutcome } from "../tasks/saga.ts";
import { copyTimeoutMs, powerTimeoutMs, shutdownTimeoutSeconds } from "./forward-steps.ts";
import { noteInstants } from "./move.ts";
import { moveContext, moveStep, type MoveContext } from "./move-steps.ts";
import { awayInVain } from "./note-downtime.ts";
import { beginStay } from "./switch-place.ts";
import { goneTarget, watchPlace } from "./watch-target.ts";

/**
 * Proxmox moves the container; where it is afterwards counts, not how the command ended. It gives up on a guest that does not
 * shut down: where its pod may be stopped by force by now, that is done before, and the container moves stopped.
 */
export const transferStep: Step = {
  name: "transfer",
  percent: 5,
  attemptsMax: 12,
  async begin(context) {
    const { move } = await moveContext(context);
    const isForced = move.strategy === "cluster-migrate" && move.runs && move.stoppedAt === null && mayForce(context);
    return await (isForced ? stopping : migrating).begin(context);
  },
  watch: async (context, command) => await watchPlace(await moveContext(context), command),
  async resume(context, command) {
    const [asked] = await context.tx.query<{ op: string }>(sql`SELECT op FROM node_commands WHERE id = ${command.id}`);
    if (asked?.op !== "ensure_power") return await migrating.resume(context, command);
    const stopped = await stopping.resume(context, command);
    return stopped.kind === "done" ? await migrating.begin(context) : stopped;
  },
};

/** Of tasks of drains that stop what is left when their time is up. */
function mayForce({ task, now }: StepContext): boolean {
  const { forceAfterMs } = task.input;
  return typeof forceAfterMs === "number" && now.getTime() >= forceAfterMs;
}

const stopping = moveStep({
  name: "transfer",
  percent: 5,
  at: "source",
  waitingFor: "Stopping the container, by force if it does not shut down",
  applies: () => true,
  wish: () => ({
    op: { $case: "ensurePower", value: { power: Power.POWER_STOPPED, shutdownTimeoutSeconds } },
    timeoutMs: powerTimeoutMs,
  }),
  before: async ({ tx, move, now }) => await noteInstants(tx, move.id, now, "begun"),
  async onSuccess({ tx, move }, { id }) {
    const [asked] = await tx.query<{ at: Date }>(sql`SELECT created_at AS at FROM node_commands WHERE id = ${id}`);
    if (asked !== undefined) await noteInstants(tx, move.id, asked.at, "stopped");
    return { kind: "done", message: "The container is stopped" };
  },
});

const migrating = moveStep({
  name: "transfer",
  percent: 5,
  at: "source",
  waitingFor: "Moving the container inside its cluster",
  applies: ({ strategy }) => strategy === "cluster-migrate",
  wish: (pod, move) => ({
    op: {
      $case: "migrate",
      value: {
        target: move.toPveName,
        targetStorage: pod.storage === move.storage ? "" : move.storage,
        shutdownTimeoutSeconds: 2 * shutdownTimeoutSeconds,
      },
    },
    timeoutMs: copyTimeoutMs,
    // It may stand behind other migrations.
    ttlMs: copyTimeoutMs,
  }),
  async before({ tx, pod, move, now }) {
    await noteInstants(tx, move.id, now, "begun");
    await beginStay(tx, pod, move, now);
  },
  onSuccess: async (context, command) => (await arrived(context, command)) ?? unknownPlace,
  async onFailure(context, command) {
    const there = await arrived(context, command);
    if (there !== undefined) return there;
    // Proxmox leaves the pod where it runs, and another host may have a place for it.
    if (command.errorCode !== "LINKED_CLONE_NOT_MOVABLE") return await goneTarget(context.tx, context.move, 0);
    if (context.move.archiveStorage === null) return undefined;
    await context.tx.execute(sql`UPDATE cloud_pod_moves SET strategy = 'backup-restore' WHERE id = ${context.move.id}`);
    return { kind: "done", message: "Proxmox cannot move this disk; it goes by an archive instead" };
  },
});

const unknownPlace: StepOutcome = {
  kind: "retry",
  code: "PLACE_UNKNOWN",
  message: "The host does not say where the container is",
};

async function arrived({ tx, move }: MoveContext, command: FinishedCommand): Promise<StepOutcome | undefined> {
  const seen = command.move === null ? undefined : MoveObservation.fromJSON(command.move);
  if (seen?.pveName !== move.toPveName) return undefined;
  // One that was stopped before has been away for longer than the migration took.
  if (seen.downtimeMs > 0n && move.stoppedAt === null) {
    const awayMs = Number(seen.downtimeMs) + (await awayInVain(tx, move));
    await tx.execute(sql`UPDATE cloud_pod_moves SET downtime_ms = ${awayMs} WHERE id = ${move.id}`);
  }
  return { kind: "done", message: `The container is on ${move.toNode}` };
}
