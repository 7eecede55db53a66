import { taskTypes } from "@cloudpods/shared/task-types";
import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import type { TenantContext } from "../http/context.ts";
import { readEmails } from "../security/actor-email.ts";
import { taskStates, type Task } from "./task.ts";

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
    requestedByEmail: z
      .string()
      .nullable()
      .optional()
      .openapi({ description: "For operators; null: a part of the control plane." }),
    createdAt: timestamp,
    updatedAt: timestamp,
    finishedAt: timestamp.nullable(),
  })
  .openapi("Task");

/** Views of tasks; for operators with the addresses of those who asked for them. */
export async function viewsFor(ctx: TenantContext, tasks: readonly Task[]): Promise<z.input<typeof taskView>[]> {
  if (ctx.actor.platformRole === "USER") return tasks.map(toTaskView);
  const emails = await readEmails(
    ctx.system,
    tasks.map(({ requestedBy }) => requestedBy),
  );
  return tasks.map((task) => ({ ...toTaskView(task), requestedByEmail: emails.get(task.requestedBy) ?? null }));
}

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
