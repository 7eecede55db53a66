import type { Logger } from "pino";
import type { Database } from "../platform/database.ts";
import type { Loop } from "../platform/loops.ts";
import { sql } from "../platform/sql.ts";
import { archiveDays, archiveHours, isProvedSince } from "./archive-rollups.ts";
import { archiveSamples, dropArchivedPartitions, type ArchiveOptions } from "./archive-samples.ts";
import { closeMonths } from "./close-months.ts";
import { yearMonthOf } from "./roll-up-months.ts";
import { rollUpDirty } from "./roll-up.ts";
import { sealDays } from "./seal-days.ts";
import { verifyMetering } from "./verify-metering.ts";

const minuteMs = 60_000;

/** What the loops of usage need. */
export interface UsageLoopOptions extends ArchiveOptions {
  /** The system's login. */
  readonly db: Database;
  readonly log: Logger;
}

/**
 * Roll-ups, closing, retention and the nightly proof. A pass looks every minute and makes what is due: an
 * hour five minutes after its end, days and months as soon as something below them changed, ended months as
 * soon as they are final. A pass that was missed is made up for by the next one.
 */
export function usageLoops(options: UsageLoopOptions): Loop[] {
  const { db } = options;
  return [
    {
      name: "roll-up-usage",
      everyMs: minuteMs,
      async run() {
        const made = await rollUpDirty(db, new Date());
        const closed = await closeMonths(db, new Date());
        const report = { ...(made.hours > 0 && made), ...(closed.length > 0 && { closed: closed.length }) };
        return Object.keys(report).length === 0 ? undefined : report;
      },
    },
    {
      name: "retain-usage",
      everyMs: 10 * minuteMs,
      async run() {
        const sealed = await sealDays(db, new Date());
        const { archived, refused } = await archiveSamples(db, options);
        for (const { day, findings } of refused)
          options.log.error({ day, findings }, "samples do not agree with their hours: they are kept");
        const report = {
          sealed,
          archived,
          dropped: await dropArchivedPartitions(db, options),
          hoursArchived: await archiveHours(db, options, new Date()),
          daysArchived: await archiveDays(db, options, new Date()),
        };
        return Object.values(report).some((list) => list.length > 0) ? report : undefined;
      },
    },
    { name: "verify-metering", everyMs: 30 * minuteMs, run: () => verifyNightly(options) },
  ];
}

const nightHour = 3;
const dayMs = 24 * 60 * minuteMs;

/**
 * Once a night (UTC): the month, in the first days of one also the month before, and closed ones that have changed since
 * they were last found to be right. Hours are given up only after that.
 */
async function verifyNightly({ db, log, archiveDirectory }: UsageLoopOptions): Promise<undefined> {
  const now = new Date();
  if (now.getUTCHours() < nightHour) return undefined;
  const today = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate()));
  for (const month of await monthsToVerify(db, now)) {
    const done = await db.query(
      sql`SELECT FROM usage_verifications WHERE year_month = ${month} AND verified_at >= ${today} LIMIT 1`,
    );
    if (done.length > 0) continue;
    // Files of former nights were read then.
    const archives = { directory: archiveDirectory, since: new Date(now.getTime() - 2 * dayMs) };
    const { findings, checked } = await verifyMetering(db, month, archives);
    const disagreements = findings.filter(({ check }) => check !== "unpriced");
    await db.execute(sql`
      INSERT INTO usage_verifications (year_month, verified_at, findings_count, disagreements_count, findings)
      VALUES (${month}, ${now}, ${findings.length}, ${disagreements.length}, ${JSON.stringify(findings.slice(0, 100))})`);
    if (findings.length > 0)
      log.error({ month, findings: findings.slice(0, 20), count: findings.length }, "usage does not add up");
    else log.info({ month, ...checked }, "usage adds up");
  }
  return undefined;
}

async function monthsToVerify(db: Database, now: Date): Promise<ReadonlySet<string>> {
  const closed = await db.query<{ month: string }>(sql`
    SELECT m.year_month AS month FROM usage_closed_months m
    WHERE (SELECT coalesce(bool_or(d.hours_archived_at IS NULL), true) FROM usage_days d WHERE to_char(d.day, 'YYYY-MM') = m.year_month)
    GROUP BY m.year_month
    HAVING NOT (${isProvedSince(sql`m.year_month`, sql`max(m.closed_at)`)})`);
  return new Set([
    yearMonthOf(now),
    yearMonthOf(new Date(now.getTime() - 4 * dayMs)),
    ...closed.map(({ month }) => month),
  ]);
}
