import fc from "fast-check";
import { expect, test } from "vitest";
import { attemptsMax, decideAttempt, type DeliveryOutcome } from "./decide-attempt.ts";

const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const failed: DeliveryOutcome = { kind: "failed", code: "WEBHOOK_STATUS", message: "answered 500" };

test("what always fails is tried a bounded number of times within a day, then is dead", () => {
  fc.assert(
    fc.property(fc.array(random, { minLength: attemptsMax, maxLength: attemptsMax }), (randoms) => {
      const decisions = randoms.map((value, index) => decideAttempt(index + 1, failed, value));
      expect(decisions.map((decision) => decision.kind)).toEqual([
        ...Array.from({ length: attemptsMax - 1 }, () => "retry"),
        "dead",
      ]);
      const totalMs = decisions.reduce((sum, decision) => sum + (decision.kind === "retry" ? decision.delayMs : 0), 0);
      expect(totalMs).toBeGreaterThan(6 * 3_600_000);
      expect(totalMs).toBeLessThan(24 * 3_600_000);
    }),
  );
});

test("a later attempt never waits less at the same luck, and none waits less than five seconds", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: attemptsMax - 2 }), random, (attempt, value) => {
      const [now, next] = [decideAttempt(attempt, failed, value), decideAttempt(attempt + 1, failed, value)];
      if (now.kind !== "retry" || next.kind !== "retry") throw new Error("both are tried again");
      expect(next.delayMs).toBeGreaterThanOrEqual(now.delayMs);
      expect(now.delayMs).toBeGreaterThanOrEqual(5_000);
    }),
  );
});

test("a refusal is dead at once, a delivery is sent whenever it comes", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), random, (attempt, value) => {
      expect(decideAttempt(attempt, { kind: "delivered" }, value)).toEqual({ kind: "sent" });
      expect(decideAttempt(attempt, { ...failed, kind: "refused" }, value).kind).toBe("dead");
    }),
  );
});
