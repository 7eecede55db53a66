import type { AnswerOf } from "../api/endpoints.ts";
import { formatAge, formatDuration } from "../terminal/format.ts";
import { renderTable, type Column } from "../terminal/table.ts";

type Task = AnswerOf<"showTask">;
type QueuedTask = AnswerOf<"listQueue">["data"][number];

const common = [
  { name: "task", value: ({ id }) => id },
  { name: "type", value: ({ type }) => type },
  { name: "state", value: ({ state }) => state },
  { name: "step", value: ({ step }) => step },
  { name: "%", value: ({ percent }) => percent },
] satisfies Column<Task>[];

/** A table of tasks. */
export function renderTasks(tasks: readonly Task[], nowMs: number): string {
  return renderTable<Task>(
    [
      ...common,
      { name: "pod", value: ({ podId }) => podId },
      { name: "age", value: ({ createdAt }) => formatAge(createdAt, nowMs) },
      {
        name: "took",
        value: ({ createdAt, finishedAt }) =>
          finishedAt === null ? null : formatDuration(Date.parse(finishedAt) - Date.parse(createdAt)),
      },
      { name: "error", value: ({ error }) => error?.code },
    ],
    tasks,
  );
}

/** A table of work that is not finished, of all tenants. */
export function renderQueue(tasks: readonly QueuedTask[]): string {
  return renderTable<QueuedTask>(
    [
      ...common,
      { name: "tries", value: ({ attempts }) => attempts },
      { name: "pod", value: ({ podId }) => podId },
      { name: "tenant", value: ({ tenantId }) => tenantId },
      { name: "age", value: ({ ageSeconds }) => formatDuration(ageSeconds * 1_000) },
      { name: "node", value: ({ command }) => command?.node },
      { name: "command", value: ({ command }) => (command === null ? null : `${command.op} ${command.state}`) },
    ],
    tasks,
  );
}

/** A task in a line. */
export function describeTask(task: Task): string {
  const { state, step, percent, error } = task;
  const why = error === null ? "" : `: ${error.message} (${error.code})`;
  return `${nameOf(task)} ${state}, ${step}, ${percent} %${why}`;
}

/** A task that was asked to be cancelled: what was begun on a host ends first. */
export function describeCancelling(task: Task): string {
  return task.finishedAt === null ? `${nameOf(task)} is being cancelled; ${howToWatch(task)}` : describeTask(task);
}

/** A task that is tried again. */
export function describeRetry(task: Task): string {
  return task.finishedAt === null ? `${nameOf(task)} is tried again; ${howToWatch(task)}` : describeTask(task);
}

function nameOf({ id, type }: Task): string {
  return `Task ${id} (${type})`;
}

function howToWatch({ id }: Task): string {
  return `watch it with: cloudpods tasks watch ${id}`;
}
