import { taskTypes, type TaskType } from "@cloudpods/shared/task-types";
import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { eventStream } from "../http/event-stream.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import type { Hints } from "../platform/hints.ts";
import { joinSql, sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { cancelTask, findOwnTask, requeueTask, requireCustomersWork } from "./change-task.ts";
import type { Saga } from "./saga.ts";
import { followTask } from "./follow-task.ts";
import { taskView, toTaskView, viewsFor } from "./task-view.ts";
import { taskColumns, taskStates, type Task } from "./task.ts";

/** What the routes of tasks need. */
export interface TaskRoutesOptions {
  readonly hints: Hints;
  readonly sagas: readonly Saga[];
  /**
   * Checks and prepares the thing that a failed task was about, before it is tried again.
   * @returns how long this one may take, ms; undefined: as its saga says
   */
  readonly prepareRetry: (tx: Parameters<typeof requeueTask>[0], task: Task) => Promise<number | undefined>;
}

const filters = listQuery.extend({
  state: z.enum(taskStates).optional(),
  // The name that older clients use for the type of an order's task.
  type: z.enum([...taskTypes, "CREATE_CONTAINER"]).optional(),
  podId: z.uuid().optional(),
});

/** Work: list, watch, cancel, try again. */
export function registerTaskRoutes(routes: RouteTable, options: TaskRoutesOptions): void {
  registerReading(routes, options);
  registerChanges(routes, options);
}

function registerReading(routes: RouteTable, options: TaskRoutesOptions): void {
  route(routes, {
    method: "get",
    path: "/api/tasks",
    summary: "Work of the tenant, newest first",
    tags: ["tasks"],
    access: { scope: "READ" },
    request: { query: filters },
    responses: { 200: listOf(taskView) },
    async handler({ query }, ctx) {
      const before = decodeCursor(query.cursor, 1)?.[0];
      const type = query.type === "CREATE_CONTAINER" ? "create" : query.type;
      const conditions = [
        sql`t.tenant_id = ${ctx.tenantId}`,
        ...(query.state === undefined ? [] : [sql`t.state = ${query.state}`]),
        ...(type === undefined ? [] : [sql`t.type = ${type}`]),
        ...(query.podId === undefined ? [] : [sql`t.pod_id = ${query.podId}`]),
        ...(before === undefined ? [] : [sql`t.id < ${before}::uuid`]),
      ];
      const rows = await ctx.inTenant((tx) =>
        tx.query<Task>(sql`SELECT ${taskColumns} FROM cloud_pod_provisioning_tasks t
          WHERE ${joinSql(conditions, sql` AND `)} ORDER BY t.id DESC LIMIT ${query.limit + 1}`),
      );
      const { data, nextCursor } = toIdPage(rows, query.limit, (task) => task);
      return { status: 200, body: { data: await viewsFor(ctx, data), nextCursor } };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/tasks/:task",
    summary: "A task",
    tags: ["tasks"],
    access: { scope: "READ" },
    responses: { 200: taskView },
    async handler({ params }, ctx) {
      const task = await ctx.inTenant((tx) => findOwnTask(tx, ctx.tenantId, params.task));
      const [view = toTaskView(task)] = await viewsFor(ctx, [task]);
      return { status: 200, body: view };
    },
  });
  eventStream(routes, {
    path: "/api/tasks/:task/events",
    summary: "Progress of a task as it happens",
    tags: ["tasks"],
    access: { scope: "READ" },
    async open({ params }, ctx) {
      await ctx.inTenant((tx) => findOwnTask(tx, ctx.tenantId, params.task));
      return (position) =>
        followTask({ ...position, tenantId: ctx.tenantId, taskId: params.task, db: ctx.system, hints: options.hints });
    },
  });
}

function registerChanges(routes: RouteTable, options: TaskRoutesOptions): void {
  route(routes, {
    method: "post",
    path: "/api/tasks/:task/cancel",
    summary: "Cancel a task; what it did is taken back",
    tags: ["tasks"],
    access: { scope: "PROVISIONING" },
    idempotent: true,
    responses: { 202: taskView },
    async handler({ params }, ctx) {
      const operatorsSteps = (type: TaskType) =>
        ctx.asOperator ? options.sagas.find((known) => known.type === type)?.operatorsMayCancelAt : undefined;
      const { task, nodeId } = await ctx.inTenant(async (tx) => {
        const cancelled = await cancelTask(tx, ctx.tenantId, params.task, operatorsSteps);
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: ctx.tenantId,
          action: "task.cancel",
          targetType: "task",
          targetId: params.task,
        });
        return cancelled;
      });
      ctx.afterCommit(() => {
        options.hints.send("tasks", task.id);
        if (nodeId !== undefined) options.hints.send("node_commands", nodeId);
      });
      return { status: 202, headers: { location: `/api/tasks/${task.id}` }, body: toTaskView(task) };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/tasks/:task/retry",
    summary: "Try a failed task again",
    tags: ["tasks"],
    access: { scope: "PROVISIONING" },
    idempotent: true,
    responses: { 202: taskView },
    async handler({ params }, ctx) {
      const task = await ctx.inTenant(async (tx) => {
        const failed = await findOwnTask(tx, ctx.tenantId, params.task);
        if (!ctx.asOperator) requireCustomersWork(failed, "try again");
        const saga = options.sagas.find((known) => known.type === failed.type);
        if (saga === undefined)
          throw new DomainError("wrong-state", "TASK_NOT_RETRYABLE", "Work of this type cannot be tried again.");
        const allowedMs = failed.state === "failed" ? await options.prepareRetry(tx, failed) : undefined;
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: ctx.tenantId,
          action: "task.retry",
          targetType: "task",
          targetId: params.task,
        });
        return await requeueTask(
          tx,
          await findOwnTask(tx, ctx.tenantId, params.task, true),
          saga.steps[0].name,
          allowedMs ?? saga.deadlineMs,
        );
      });
      ctx.afterCommit(() => options.hints.send("tasks", task.id));
      return { status: 202, headers: { location: `/api/tasks/${task.id}` }, body: toTaskView(task) };
    },
  });
}
