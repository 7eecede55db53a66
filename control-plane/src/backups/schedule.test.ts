import fc from "fast-check";
import { expect, test } from "vitest";
import { nextBackupAt } from "./schedule.ts";

const hourMs = 3_600_000;

test("a pod is due once in each period, always at its own place in it", () => {
  fc.assert(
    fc.property(
      fc.uuid(),
      fc.integer({ min: 1, max: 744 }),
      fc.date({ min: new Date("2026-01-01"), max: new Date("2036-01-01"), noInvalidDate: true }),
      (podId, everyHours, after) => {
        const next = nextBackupAt(podId, everyHours, after);
        expect(next.getTime()).toBeGreaterThan(after.getTime());
        expect(next.getTime() - after.getTime()).toBeLessThanOrEqual(everyHours * hourMs);
        expect(nextBackupAt(podId, everyHours, next).getTime() - next.getTime()).toBe(everyHours * hourMs);
      },
    ),
  );
});

test("a fleet is spread over the whole day", () => {
  const begin = new Date("2026-03-01T00:00:00Z");
  const byHour = Map.groupBy(
    Array.from({ length: 2_400 }, (_, index) => nextBackupAt(`pod-${index}`, 24, begin)),
    (at) => Math.floor((at.getTime() - begin.getTime()) / hourMs),
  );
  const counts = [...byHour.values()].map((pods) => pods.length);
  expect(counts).toHaveLength(24);
  expect(Math.max(...counts)).toBeLessThan(150);
});
