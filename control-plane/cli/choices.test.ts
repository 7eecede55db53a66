import { expect, test } from "vitest";
import { findingKinds as serversKinds } from "../src/reconciling/finding.ts";
import { taskTypes as serversTypes } from "../src/tasks/task.ts";
import { findingKinds, taskTypes } from "./choices.ts";

test("the words that are offered are those that the control plane knows", () => {
  expect(taskTypes).toEqual(serversTypes);
  expect(findingKinds).toEqual(serversKinds);
});
