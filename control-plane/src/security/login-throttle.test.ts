import { expect, test } from "vitest";
import { blockSecondsAfter } from "./login-throttle.ts";

test("the wait begins at the fifth failure, doubles and ends at a quarter of an hour", () => {
  expect([1, 4, 5, 6, 7, 14, 15, 30].map(blockSecondsAfter)).toEqual([0, 0, 1, 2, 4, 512, 900, 900]);
});
