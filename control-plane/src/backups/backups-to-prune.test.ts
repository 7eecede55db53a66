import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { backupsToPrune, type KeptBackup, type Retention } from "./backups-to-prune.ts";

const now = new Date("2026-06-15T12:00:00Z");
const dayMs = 86_400_000;

function backup(daysAgo: number, change: Partial<KeptBackup> = {}): KeptBackup {
  const startedAt = new Date(now.getTime() - daysAgo * dayMs);
  return {
    id: `${daysAgo}`,
    startedAt,
    isScheduled: true,
    isDamaged: false,
    isInDoubt: false,
    isInUse: false,
    expiresAt: null,
    ...change,
  };
}

const someBackups = fc.uniqueArray(fc.integer({ min: 0, max: 24 * 90 }), { maxLength: 40 }).chain((hours) =>
  fc.tuple(
    ...hours.map((hoursAgo) =>
      fc
        .record({
          isScheduled: fc.boolean(),
          isDamaged: fc.boolean(),
          isInDoubt: fc.boolean(),
          isInUse: fc.boolean(),
          expiresAt: fc.option(fc.integer({ min: -30, max: 30 }).map((days) => new Date(now.getTime() + days * dayMs))),
        })
        .map((change) => backup(hoursAgo / 24, change)),
    ),
  ),
);
const someRetention: fc.Arbitrary<Retention> = fc.record({
  keepLast: fc.integer({ min: 1, max: 5 }),
  keepDaily: fc.integer({ min: 0, max: 7 }),
  keepWeekly: fc.integer({ min: 0, max: 5 }),
});

describe("whatever there is and whatever the rules are", () => {
  test("what can be gone back to, what is in use and what is not due stays", () => {
    fc.assert(
      fc.property(someBackups, fc.option(someRetention, { nil: undefined }), (backups, retention) => {
        const gone = new Set(backupsToPrune(backups, { retention, isPodGone: false }, now));
        const good = backups.filter(({ isDamaged, isInDoubt }) => !isDamaged && !isInDoubt);
        for (const some of [good, backups.filter(({ isInDoubt }) => isInDoubt)]) {
          const newest = some.toSorted((a, b) => b.startedAt.getTime() - a.startedAt.getTime())[0];
          if (newest !== undefined) expect(gone).not.toContain(newest.id);
        }
        for (const one of backups.filter(({ id }) => gone.has(id))) {
          expect(one.isInUse).toBe(false);
          const isOver = one.expiresAt !== null && one.expiresAt <= now;
          expect(isOver || (one.isScheduled && retention !== undefined)).toBe(true);
        }
      }),
    );
  });

  test("no more stay than the rules keep, the newest ones among them, and a second look finds nothing", () => {
    fc.assert(
      fc.property(someBackups, someRetention, (backups, retention) => {
        const how = { retention, isPodGone: false };
        const gone = new Set(backupsToPrune(backups, how, now));
        const left = backups.filter(({ id }) => !gone.has(id));
        expect(backupsToPrune(left, how, now)).toEqual([]);
        const counted = left.filter((one) => one.isScheduled && !one.isDamaged && !one.isInDoubt && !one.isInUse);
        // One more: the newest of all stays even where it fills no place.
        expect(counted.length).toBeLessThanOrEqual(retention.keepLast + retention.keepDaily + retention.keepWeekly + 1);
        const good = backups
          .filter(
            (one) =>
              one.isScheduled && !one.isDamaged && !one.isInDoubt && (one.expiresAt === null || one.expiresAt > now),
          )
          .toSorted((a, b) => b.startedAt.getTime() - a.startedAt.getTime());
        const all = backups
          .filter((one) => one.isScheduled && !one.isDamaged && !one.isInDoubt)
          .toSorted((a, b) => b.startedAt.getTime() - a.startedAt.getTime());
        for (const one of all.slice(0, retention.keepLast)) if (good.includes(one)) expect(gone).not.toContain(one.id);
      }),
    );
  });

  test("of a pod that is gone only an end counts, also for the newest", () => {
    fc.assert(
      fc.property(someBackups, someRetention, (backups, retention) => {
        const gone = new Set(backupsToPrune(backups, { retention, isPodGone: true }, now));
        const due = backups.filter((one) => !one.isInUse && one.expiresAt !== null && one.expiresAt <= now);
        expect(gone).toEqual(new Set(due.map(({ id }) => id)));
      }),
    );
  });
});

test("days and weeks keep the newest of each", () => {
  const twiceADay = Array.from({ length: 60 }, (_, index) => backup(index / 2));
  const retention = { keepLast: 1, keepDaily: 3, keepWeekly: 3 };
  const gone = new Set(backupsToPrune(twiceADay, { retention, isPodGone: false }, now));
  // Monday noon: today, yesterday, the day before; this week, and the last moments of the two Sundays before.
  expect(twiceADay.filter(({ id }) => !gone.has(id)).map(({ id }) => Number(id))).toEqual([0, 1, 2, 8]);
});

test("a damaged one fills no place, and goes once something older that is good has gone", () => {
  const backups = [backup(0, { isDamaged: true }), backup(1), backup(2, { isDamaged: true }), backup(3)];
  const keep = (keepLast: number) =>
    backupsToPrune(backups, { retention: { keepLast, keepDaily: 0, keepWeekly: 0 }, isPodGone: false }, now);
  expect(keep(2)).toEqual([]);
  expect(keep(1)).toEqual(["2", "3"]);
});
