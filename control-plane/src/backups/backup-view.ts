import { z } from "@hono/zod-openapi";
import { counter, timestamp, uuid } from "../http/fields.ts";
import { backupModes, backupStates, type Backup } from "./backup.ts";

/** A backup as the API shows it. */
export const backupView = z
  .object({
    id: uuid,
    podId: uuid,
    kind: z.enum(["scheduled", "manual", "final"]),
    mode: z
      .enum(backupModes)
      .openapi({ description: "How the pod was held still: not at all, for seconds, or stopped." }),
    state: z.enum(backupStates),
    sizeBytes: counter.nullable(),
    note: z.string().nullable(),
    spec: z
      .object({
        hostname: z.string(),
        cores: z.number().int(),
        memoryMb: z.number().int(),
        swapMb: z.number().int(),
        diskGb: z.number().int(),
        planCode: z.string().nullable(),
      })
      .openapi({ description: "What the pod was." }),
    startedAt: timestamp,
    finishedAt: timestamp.nullable(),
    verifiedAt: timestamp.nullable().openapi({ description: "When it was last read to its end without a fault." }),
    damagedAt: timestamp
      .nullable()
      .openapi({ description: "Not there or not readable since; nothing can be restored from it." }),
    expiresAt: timestamp.nullable().openapi({ description: "Null: as the pod's rules say." }),
    deleteRequestedAt: timestamp.nullable(),
    prunedAt: timestamp.nullable(),
    error: z.object({ code: z.string(), message: z.string() }).nullable(),
    taskId: uuid.nullable(),
  })
  .openapi("Backup");

/** The view of a row. Where an archive lies is its host's business. */
export function toBackupView({ errorCode, errorMessage, ...rest }: Backup): z.input<typeof backupView> {
  return { ...rest, error: errorCode === null ? null : { code: errorCode, message: errorMessage ?? "" } };
}
