import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import type { MoveStrategy } from "./move.ts";
import type { PlannedMove } from "./plan-moves.ts";

/** What a host would be told, by the name of the command in the protocol. */
const commandView = z.object({ node: z.string(), command: z.string() });

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
      .object({ backupId: uuid, madeAt: timestamp, ageSeconds: z.number().int() })
      .nullable()
      .optional()
      .openapi({
        description:
          "Of an evacuation: the backup that the pod comes back from; null when its own disk is still there.",
      }),
    blocker: z.object({ code: z.string(), message: z.string() }).nullable(),
    commands: z.array(commandView).openapi({ description: "What both hosts would be told, in order." }),
  })
  .openapi("PlannedMove");

/** The view of a planned move from the host named. */
export function toPlannedMoveView(
  move: PlannedMove,
  from: string,
  isInCluster: boolean,
): z.input<typeof plannedMoveView> {
  const commands =
    move.target === null || move.strategy === null
      ? []
      : commandsOf(move.strategy, { from, to: move.target.node, isInCluster });
  return { ...move, backupsLeftBehind: [...move.backupsLeftBehind], commands };
}

function commandsOf(
  strategy: MoveStrategy,
  { from, to, isInCluster }: { readonly from: string; readonly to: string; readonly isInCluster: boolean },
): z.input<typeof commandView>[] {
  const told = (node: string, ...commands: string[]) => commands.map((command) => ({ node, command }));
  if (strategy === "cluster-migrate")
    return [...told(from, "migrate"), ...told(to, "ensure_container", "ensure_power")];
  return [
    ...told(from, "ensure_power", "backup"),
    ...told(to, "verify_backup"),
    ...(isInCluster ? told(from, "ensure_absent") : []),
    ...told(to, "restore", "ensure_power"),
    ...(isInCluster ? [] : told(from, "ensure_absent")),
    ...told(to, "delete_backup"),
  ];
}
