import { expect, test } from "vitest";
import { renderPodUsage } from "./account-views.ts";

test("of a pod that lives less than an hour it is told that its days come, and where its cost is already", () => {
  expect(renderPodUsage({ dailyUsage: [] })).toMatch(/^No hour .* yet; .*: cloudpods usage$/);
});
