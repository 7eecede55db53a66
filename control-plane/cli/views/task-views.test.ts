import { expect, test } from "vitest";
import { describeCancelling, describeRetry } from "./task-views.ts";

const task = {
  id: "t1",
  podId: "p1",
  type: "create",
  state: "waiting",
  step: "create",
  percent: 10,
  attempts: 0,
  error: null,
  requestedBy: "user:u1",
  createdAt: "2026-01-01T00:00:00Z",
  finishedAt: null,
};

test("of a task that only waits for its host somebody who cancels it is told that it will end", () => {
  expect(describeCancelling(task)).toBe("Task t1 (create) is being cancelled; watch it with: cloudpods tasks watch t1");
  const error = { code: "CANCELLED", message: "Cancelled on request" };
  const ended = { ...task, state: "cancelled", error, finishedAt: "2026-01-01T00:00:01Z" };
  expect(describeCancelling(ended)).toBe("Task t1 (create) cancelled, create, 10 %: Cancelled on request (CANCELLED)");
});

test("of a task that is tried again it is told how to watch it", () => {
  expect(describeRetry(task)).toBe("Task t1 (create) is tried again; watch it with: cloudpods tasks watch t1");
});
