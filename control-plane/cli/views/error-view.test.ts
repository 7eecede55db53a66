import { expect, test } from "vitest";
import { ApiRefusal } from "../errors.ts";
import { describeError } from "./error-view.ts";

test("who must name a tenant is told of --all only where the command has it", () => {
  const problem = { status: 400, title: "", detail: "Which tenant?", error: "TENANT_REQUIRED" };
  const refusal = new ApiRefusal(problem, "", undefined);
  expect(describeError(refusal)).toBe("cloudpods: Which tenant? (TENANT_REQUIRED)\n  Name it with --tenant.");
  expect(describeError(refusal, { hasAll: true })).toMatch(/ Name it with --tenant, or .* with --all\.$/);
});
