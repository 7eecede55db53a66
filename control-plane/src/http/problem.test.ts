import { DomainError, errorKinds, type ErrorKind } from "@cloudpods/shared/errors";
import { expect, test } from "vitest";
import { HttpRefusal, problemOf } from "./problem.ts";

const expected: Record<ErrorKind, number> = {
  invalid: 422,
  unauthenticated: 401,
  forbidden: 403,
  "not-found": 404,
  "already-exists": 409,
  conflict: 409,
  "wrong-state": 409,
  "precondition-failed": 412,
  "rate-limited": 429,
  "quota-exceeded": 403,
  "no-capacity": 503,
  unavailable: 503,
};

test.each(errorKinds)("the kind %s has its status, code and request id", (kind) => {
  const { problem } = problemOf(new DomainError(kind, "SOME_CODE", "said so", { details: { limit: 2 } }), "request-1");
  expect(problem).toMatchObject({
    status: expected[kind],
    error: "SOME_CODE",
    detail: "said so",
    message: "said so",
    details: { limit: 2 },
    requestId: "request-1",
    type: "urn:cloudpods:error:SOME_CODE",
  });
});

test.each([
  ["no-capacity", "60"],
  ["unavailable", "5"],
  ["rate-limited", "1"],
] as const)("%s says when to try again, by itself or as the error says", (kind, byItself) => {
  expect(problemOf(new DomainError(kind, "X", "x"), "r").headers["retry-after"]).toBe(byItself);
  expect(problemOf(new DomainError(kind, "X", "x", { retryAfterSeconds: 6.2 }), "r").headers["retry-after"]).toBe("7");
});

test("a quota says nothing of trying again", () => {
  expect(problemOf(new DomainError("quota-exceeded", "X", "x"), "r").headers).toEqual({});
});

test("an unknown error tells only the request id", () => {
  const { problem } = problemOf(new Error("password of db is hunter2", { cause: new Error("secret") }), "request-9");
  expect(problem).toMatchObject({ status: 500, error: "INTERNAL_ERROR", requestId: "request-9" });
  expect(JSON.stringify(problem)).not.toMatch(/hunter2|secret/);
});

test.each([
  Object.assign(new Error("connect ECONNREFUSED 127.0.0.1:5432"), { code: "ECONNREFUSED" }),
  Object.assign(new AggregateError([Object.assign(new Error("x"), { code: "ECONNREFUSED" })], ""), {}),
  Object.assign(new Error("terminating connection due to administrator command"), { code: "57P01" }),
  Object.assign(new Error("connection failure"), { code: "08006" }),
  Object.assign(new Error("cannot execute INSERT in a read-only transaction"), { code: "25006" }),
  new Error("timeout exceeded when trying to connect"),
  new Error("Connection terminated unexpectedly"),
  new Error("Connection terminated due to connection timeout"),
])("a lost database is worth trying again: %s", (error) => {
  const { problem, headers } = problemOf(error, "r");
  expect(problem).toMatchObject({ status: 503, error: "DATABASE_UNAVAILABLE" });
  expect(headers["retry-after"]).toBe("2");
});

test.each(["53300", "57014", "55P03", "40001", "40P01"])("an overloaded database is worth trying again: %s", (code) => {
  const { problem, headers } = problemOf(Object.assign(new Error("of hunter2"), { code }), "r");
  expect(problem).toMatchObject({ status: 503, error: "DATABASE_BUSY" });
  expect(headers["retry-after"]).toBe("2");
  expect(JSON.stringify(problem)).not.toContain("hunter2");
});

test("a fault in a statement is ours and not the database's absence", () => {
  expect(problemOf(Object.assign(new Error("syntax error"), { code: "42601" }), "r").problem.status).toBe(500);
});

test("a refusal by the protocol keeps its status and headers", () => {
  const { problem, headers } = problemOf(new HttpRefusal(405, "METHOD_NOT_ALLOWED", "no", { allow: "GET" }), "r");
  expect(problem.status).toBe(405);
  expect(headers).toEqual({ allow: "GET" });
});
