import { expect, test } from "vitest";
import { ApiRefusal } from "../errors.ts";
import { describeError } from "./error-view.ts";

test("who must name a tenant is told of --all only where the command has it", () => {
  const problem = { status: 400, title: "", detail: "Which tenant?", error: "TENANT_REQUIRED" };
  const refusal = new ApiRefusal(problem, "", undefined);
  expect(describeError(refusal)).toBe("cloudpods: Which tenant? (TENANT_REQUIRED)\n  Name it with --tenant.");
  expect(describeError(refusal, { hasAll: true })).toMatch(/ Name it with --tenant, or .* with --all\.$/);
});

test("who has a token in the environment is not sent to sign in, which would not be heeded", () => {
  const problem = { status: 401, title: "Unauthorized", detail: "It is not valid.", error: "CREDENTIAL_INVALID" };
  const refusal = new ApiRefusal(problem, "", undefined);
  expect(describeError(refusal, { hasTokenOfEnvironment: true })).toBe(
    "cloudpods: It is not valid. (CREDENTIAL_INVALID)\n  It is the one of CLOUDPODS_TOKEN.",
  );
  expect(describeError(refusal)).toMatch(/\n {2}Sign in again: cloudpods login$/);
});
