import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import { taskStates, taskTypes, type Task } from "./task.ts";

/** A task as the API shows it. */
export const taskView = z
  .object({
    id: uuid,
    podId: uuid,
    type: z.enum(taskTypes),
    state: z.enum(taskStates),
    step: z.string(),
    percent: z.number().int(),
    attempts: z.number().int(),
    error: z.object({ code: z.string(), message: z.string() }).nullable(),
    requestedBy: z.string(),
    createdAt: timestamp,
    updatedAt: timestamp,
    finishedAt: timestamp.nullable(),
  })
  .openapi("Task");

/** The view of a task's row. */
export function toTaskView(
  task: Pick<
    Task,
    | "id"
    | "podId"
    | "type"
    | "state"
    | "step"
    | "percent"
    | "attempts"
    | "errorCode"
    | "errorMessage"
    | "requestedBy"
    | "createdAt"
    | "updatedAt"
    | "finishedAt"
  >,
): z.input<typeof taskView> {
  const { errorCode, errorMessage, ...rest } = task;
  return { ...rest, error: errorCode === null ? null : { code: errorCode, message: errorMessage ?? "" } };
}
