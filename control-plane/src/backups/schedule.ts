import { createHash } from "node:crypto";

const hourMs = 3_600_000;

/**
 * The next instant after `after` at which a pod is backed up. Each pod has its own place within the period, always the
 * same, so that a fleet whose pods were ordered in one night does not back up in one night.
 */
export function nextBackupAt(podId: string, everyHours: number, after: Date): Date {
  const periodMs = everyHours * hourMs;
  const offsetMs = Math.floor(placeInPeriod(podId) * periodMs);
  const periods = Math.floor((after.getTime() - offsetMs) / periodMs) + 1;
  return new Date(periods * periodMs + offsetMs);
}

/** In [0, 1), evenly spread over pods. */
function placeInPeriod(podId: string): number {
  return createHash("sha256").update(podId).digest().readUIntBE(0, 6) / 2 ** 48;
}
