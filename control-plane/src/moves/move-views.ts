import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import type { ToldCommand } from "./ask-hosts.ts";
import type { PlannedMove } from "./plan-moves.ts";

/** What a host would be told. */
export const commandView = z.object({
  node: z.string(),
  command: z.string().openapi({ description: "Its name in the protocol." }),
  lines: z.array(z.string()).readonly().nullable().openapi({
    description:
      "What the host would run, as the host itself says; null with a reason where that is not known. What is given only when it is really done is shown as <id> and <time>.",
  }),
  reason: z.string().nullable(),
});

/** What would be done about one pod. */
export const plannedMoveView = z
  .object({
    podId: uuid,
    name: z.string(),
    vmid: z.number().int(),
    target: z.object({ nodeId: uuid, node: z.string(), storage: z.string() }).nullable(),
    strategy: z.enum(["cluster-migrate", "backup-restore", "take-over", "restore-newest"]).nullable(),
    expectedDowntimeMs: z
      .number()
      .int()
      .nullable()
      .openapi({ description: "As moves of this kind took, by the size of the disk; null when there was none yet." }),
    expectedDurationMs: z.number().int().nullable(),
    backupsLeftBehind: z
      .array(uuid)
      .readonly()
      .openapi({ description: "Backups on storage of the present host alone: they are out of reach from the target." }),
    archive: z
      .object({ backupId: uuid.nullable(), madeAt: timestamp, ageSeconds: z.number().int() })
      .nullable()
      .optional()
      .openapi({
        description:
          "Of an evacuation: the backup that the pod comes back from, or (backupId null) the archive of a move that the host's end has interrupted; null when its own disk is still there.",
      }),
    blocker: z.object({ code: z.string(), message: z.string() }).nullable(),
    commands: z.array(commandView).openapi({ description: "What both hosts would be told, in order." }),
  })
  .openapi("PlannedMove");

/** The view of a planned move with what both hosts say to it. */
export function toPlannedMoveView(
  move: PlannedMove,
  commands: readonly ToldCommand[],
): z.input<typeof plannedMoveView> {
  return { ...move, backupsLeftBehind: [...move.backupsLeftBehind], commands: [...commands] };
}
