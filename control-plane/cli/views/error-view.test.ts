import { DomainError } from "@cloudpods/shared/errors";
import { expect, test } from "vitest";
import { problemOf } from "../../src/http/problem.ts";
import { ApiRefusal, NotSignedInError, TaskFailedError, UnreachableError, UsageError } from "../errors.ts";
import { describeError, errorAsJson } from "./error-view.ts";

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

test("for scripts a problem of the API is as it came, and what is found out here is as the API would have said it", () => {
  const told = new DomainError("not-found", "POD_NOT_FOUND", "No such pod.");
  const { problem } = problemOf(told, "request-1");
  const text = JSON.stringify(problem);
  expect(errorAsJson(new ApiRefusal(problem, text, undefined))).toBe(text);
  const { instance: _, requestId: __, ...withoutRequest } = problem;
  expect(JSON.parse(errorAsJson(told))).toEqual(withoutRequest);
  const conflict = new DomainError("conflict", "HOSTNAME_AMBIGUOUS", "Which of them?");
  const { status, title } = problemOf(conflict, "request-1").problem;
  expect(JSON.parse(errorAsJson(conflict))).toMatchObject({ status, title, error: "HOSTNAME_AMBIGUOUS" });
  const page = new ApiRefusal({ status: 502, title: "Bad Gateway", detail: "?", error: "ANSWER_UNREADABLE" }, "<p>", 1);
  expect(JSON.parse(errorAsJson(page))).toMatchObject({ status: 502, error: "ANSWER_UNREADABLE", detail: "?" });
});

test.each([
  [new UsageError("a\nb"), "COMMAND_LINE_INVALID"],
  [new NotSignedInError("a\nb"), "CREDENTIAL_MISSING"],
  [new UnreachableError("a\nb"), "UNREACHABLE"],
  [new TaskFailedError("a\nb"), "TASK_FAILED"],
  [new Error("a\nb"), "UNEXPECTED"],
])("for scripts %s is one line with the code %s", (error, code) => {
  const line = errorAsJson(error);
  expect(line).not.toContain("\n");
  const type = `urn:cloudpods:error:${code}`;
  expect(JSON.parse(line)).toMatchObject({
    type,
    error: code,
    detail: "a\nb",
    message: "a\nb",
    title: expect.any(String),
  });
});
