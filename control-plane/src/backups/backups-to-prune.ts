/** A backup that is there, as far as it matters whether it stays. */
export interface KeptBackup {
  readonly id: string;
  readonly startedAt: Date;
  /** Made by the schedule; what people asked for stays until they or its end say otherwise. */
  readonly isScheduled: boolean;
  /** It could not be read when it was last looked at. */
  readonly isDamaged: boolean;
  /** It was not found when it was last looked for, and that is not believed yet. */
  readonly isInDoubt: boolean;
  /** Something is being made from it at this moment. */
  readonly isInUse: boolean;
  readonly expiresAt: Date | null;
}

/** How many scheduled backups stay. */
export interface Retention {
  /** The newest ones. */
  readonly keepLast: number;
  /** The newest of each of so many days (UTC) that have any. */
  readonly keepDaily: number;
  /** The newest of each of so many weeks (UTC, from Monday) that have any. */
  readonly keepWeekly: number;
}

const dayMs = 86_400_000;
/** 1970-01-05 was a Monday. */
const firstMondayMs = 4 * dayMs;

/**
 * Which of a pod's backups go. Never one that is in use, and of a pod that lives never the newest that can be read:
 * whatever the numbers say, there is always something to go back to. A damaged one fills nobody's place; it goes once
 * nothing older is kept that can be read. One in doubt counts as damaged, but the newest of them may be the last that there is,
 * and stays. `retention` undefined: the schedule is switched off, and only ends count.
 */
export function backupsToPrune(
  backups: readonly KeptBackup[],
  { retention, isPodGone }: { readonly retention: Retention | undefined; readonly isPodGone: boolean },
  now: Date,
): string[] {
  const isOver = ({ expiresAt }: KeptBackup): boolean => expiresAt !== null && expiresAt <= now;
  const newestFirst = backups.toSorted((a, b) => b.startedAt.getTime() - a.startedAt.getTime());
  const isGood = ({ isDamaged, isInDoubt }: KeptBackup): boolean => !isDamaged && !isInDoubt;
  const good = newestFirst.filter(isGood);
  const last = isPodGone ? [] : [good[0], newestFirst.find(({ isInDoubt }) => isInDoubt)];
  const kept =
    retention === undefined
      ? undefined
      : keptBySchedule(
          good.filter((backup) => !isOver(backup)),
          retention,
        );
  const oldestKept = kept?.at(-1);
  const isDue = (backup: KeptBackup): boolean => {
    if (isOver(backup)) return true;
    if (!backup.isScheduled || kept === undefined || isPodGone) return false;
    if (isGood(backup)) return !kept.includes(backup);
    return oldestKept !== undefined && backup.startedAt < oldestKept.startedAt;
  };
  return newestFirst
    .filter((backup) => !backup.isInUse && !last.includes(backup) && isDue(backup))
    .map((backup) => backup.id);
}

/** Newest first. */
function keptBySchedule(good: readonly KeptBackup[], retention: Retention): KeptBackup[] {
  const scheduled = good.filter(({ isScheduled }) => isScheduled);
  const kept = new Set([
    ...scheduled.slice(0, retention.keepLast),
    ...newestOfEach(scheduled, (at) => Math.floor(at / dayMs)).slice(0, retention.keepDaily),
    ...newestOfEach(scheduled, (at) => Math.floor((at - firstMondayMs) / (7 * dayMs))).slice(0, retention.keepWeekly),
  ]);
  return scheduled.filter((backup) => kept.has(backup));
}

function newestOfEach(newestFirst: readonly KeptBackup[], periodOf: (atMs: number) => number): KeptBackup[] {
  const seen = new Set<number>();
  return newestFirst.filter(({ startedAt }) => {
    const period = periodOf(startedAt.getTime());
    if (seen.has(period)) return false;
    seen.add(period);
    return true;
  });
}
