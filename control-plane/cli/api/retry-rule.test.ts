import { expect, test } from "vitest";
import { ApiRefusal, UnreachableError } from "../errors.ts";
import { retryDelayMs } from "./retry-rule.ts";

const refusal = (status: number, error: string, retryAfterMs?: number): ApiRefusal =>
  new ApiRefusal({ status, title: "", detail: "", error }, "", retryAfterMs);
const standing = { attempt: 1, leftMs: 60_000, random: 1 };

test.each([
  ["a lost connection", new UnreachableError("?"), 250],
  ["a busy database", refusal(503, "DATABASE_BUSY", 2_000), 2_000],
  ["its own request that is under way", refusal(409, "IDEMPOTENCY_IN_PROGRESS", 1_000), 1_000],
  ["too many requests", refusal(429, "RATE_LIMITED", 1_000), 1_000],
  ["a proxy without a server", refusal(502, "ANSWER_UNREADABLE"), 250],
  ["a wrong certificate", new UnreachableError("?", false), undefined],
  ["a full fleet", refusal(503, "NO_CAPACITY", 60_000), undefined],
  ["a conflict", refusal(409, "POD_WRONG_STATE"), undefined],
  ["a fault", refusal(500, "INTERNAL_ERROR"), undefined],
  ["something else", new Error("?"), undefined],
])("%s", (_, error, delayMs) => {
  expect(retryDelayMs(error, standing)).toBe(delayMs);
});

test("waiting grows and is spread; what answers is asked six times, what cannot be reached until the deadline", () => {
  const delaysOf = (error: Error): unknown[] =>
    [1, 2, 3, 4, 5, 6, 100].map((attempt) => retryDelayMs(error, { ...standing, attempt }));
  expect(delaysOf(refusal(503, "DATABASE_BUSY"))).toEqual([250, 500, 1_000, 2_000, 4_000, undefined, undefined]);
  const lost = new UnreachableError("?");
  expect(delaysOf(lost)).toEqual([250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
  expect(retryDelayMs(lost, { ...standing, random: 0 })).toBe(125);
  expect(retryDelayMs(lost, { ...standing, attempt: 100, leftMs: 5_000 })).toBeUndefined();
  expect(retryDelayMs(refusal(503, "DATABASE_BUSY", 2_000), { ...standing, leftMs: 1_999 })).toBeUndefined();
});
