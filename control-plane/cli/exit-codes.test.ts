import { DomainError, errorKinds } from "@cloudpods/shared/errors";
import { expect, test } from "vitest";
import { ConfigError } from "../src/config.ts";
import { problemOf } from "../src/http/problem.ts";
import { ApiRefusal, NotSignedInError, TaskFailedError, UnreachableError, UsageError } from "./errors.ts";
import { exitCodeOf, exitCodes } from "./exit-codes.ts";

test.each(errorKinds)("the kind %s ends with one code, whether it comes by the API or from this machine", (kind) => {
  const error = new DomainError(kind, "SOME_CODE", "said so");
  const { problem } = problemOf(error, "request-1");
  const code = exitCodeOf(error);
  expect(exitCodeOf(new ApiRefusal(problem, JSON.stringify(problem), undefined))).toBe(code);
  expect(code).toBeGreaterThan(exitCodes.usage.code);
});

test("each way to end has its own code", () => {
  const errors = [
    new Error("?"),
    new UsageError("?"),
    new NotSignedInError("?"),
    new UnreachableError("?"),
    new TaskFailedError("?"),
    new ConfigError(["?"]),
  ];
  expect(errors.map(exitCodeOf)).toEqual([1, 2, 5, 7, 8, 78]);
  const codes = Object.values(exitCodes).map(({ code }) => code);
  expect(new Set(codes).size).toBe(codes.length);
});

test.each([
  [500, 1],
  [502, 7],
  [413, 4],
])("an answer %d that nobody of ours wrote ends with %d", (status, code) => {
  const problem = { status, title: "", detail: "", error: "ANSWER_UNREADABLE" };
  expect(exitCodeOf(new ApiRefusal(problem, "", undefined))).toBe(code);
});
