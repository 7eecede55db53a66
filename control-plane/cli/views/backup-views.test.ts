import { expect, test } from "vitest";
import { describeRemoval } from "./backup-views.ts";

test("of a backup that is gone already nobody is told to remove it", () => {
  expect(describeRemoval({ id: "b1", state: "available" })).toBe("b1: its host is told to remove it");
  expect(describeRemoval({ id: "b1", state: "pruned" })).toBe("b1: it is pruned, and nothing is left of it");
});
