import { z } from "zod";
import { toldCommands } from "./shapes.ts";

/** The members of answers about moves, drains and evacuations that commands show. */

const timestamp = z.string();
const blocker = z.object({ code: z.string(), message: z.string() }).nullable();

export const plannedMove = z.object({
  name: z.string(),
  vmid: z.number(),
  target: z.object({ node: z.string(), storage: z.string() }).nullable(),
  strategy: z.string().nullable(),
  expectedDowntimeMs: z.number().nullable(),
  expectedDurationMs: z.number().nullable(),
  backupsLeftBehind: z.array(z.string()),
  archive: z
    .object({ backupId: z.string().nullable(), madeAt: timestamp, ageSeconds: z.number() })
    .nullable()
    .optional(),
  blocker,
  commands: toldCommands,
});

export const drainPlan = z.object({
  node: z.string(),
  moves: z.array(plannedMove),
  movable: z.number(),
  blocked: z.number(),
  totalMs: z.number().nullable(),
});

export const drain = z.object({
  id: z.string(),
  nodeId: z.string(),
  node: z.string(),
  kind: z.string(),
  state: z.string(),
  reason: z.string(),
  requestedBy: z.string(),
  requestedByEmail: z.string().nullable(),
  deadlineAt: timestamp,
  returnHome: z.boolean(),
  cancelRequestedAt: timestamp.nullable(),
  outcome: z.string().nullable(),
  startedAt: timestamp,
  finishedAt: timestamp.nullable(),
  returnedAt: timestamp.nullable(),
});

export const drainDetail = drain.extend({
  percent: z.number(),
  waitsFor: z.string().nullable(),
  counts: z.record(z.string(), z.number()),
  downtimeMs: z.object({ p50: z.number(), p95: z.number(), max: z.number() }).nullable(),
  pods: z.array(
    z.object({
      name: z.string(),
      vmid: z.number(),
      state: z.string(),
      target: z.string().nullable(),
      strategy: z.string().nullable(),
      step: z.string().nullable(),
      percent: z.number(),
      expectedDowntimeMs: z.number().nullable(),
      downtimeMs: z.number().nullable(),
      archiveAgeSeconds: z.number().nullable(),
      blocker,
    }),
  ),
});
