import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import type { ToldCommand } from "../nodes/ask-hosts.ts";
import { commandView } from "../nodes/command-view.ts";
import type { PlannedMove } from "./plan-moves.ts";

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
