import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { dayArchiveName, digestOfArchive, hourArchiveName, sampleArchiveName } from "./archive-file.ts";
import type { MeteringFinding, MonthRange } from "./verify-differences.ts";

/**
 * Archives of a month that are gone or are not what was written, by the digests that the rows keep.
 * @param since only what was archived from then on
 */
export async function findDamagedFiles(
  db: Queryable,
  directory: string,
  { month, from, to }: MonthRange,
  since: Date,
): Promise<MeteringFinding[]> {
  const hours = await db.query<{ hour: Date; sha256: Buffer }>(sql`
    SELECT DISTINCT h.hour_start AS hour, h.archive_sha256 AS sha256
    FROM cloud_pod_usage_hourly h JOIN usage_days d ON d.day = (h.hour_start AT TIME ZONE 'UTC')::date
    WHERE h.hour_start >= ${from} AND h.hour_start < ${to} AND h.archive_sha256 IS NOT NULL AND d.archived_at >= ${since} ORDER BY 1`);
  const days = await db.query<{ day: string; sha256: Buffer }>(sql`
    SELECT day::text, hours_archive_sha256 AS sha256 FROM usage_days
    WHERE to_char(day, 'YYYY-MM') = ${month} AND hours_archive_sha256 IS NOT NULL AND hours_archived_at >= ${since} ORDER BY 1`);
  const months = await db.query<{ sha256: Buffer }>(sql`
    SELECT days_archive_sha256 AS sha256 FROM usage_months WHERE year_month = ${month} AND days_archived_at >= ${since}`);
  const files = [
    ...hours.map(({ hour, sha256 }) => ({ name: sampleArchiveName(hour), period: hour.toISOString(), sha256 })),
    ...days.map(({ day, sha256 }) => ({ name: hourArchiveName(day), period: day, sha256 })),
    ...months.map(({ sha256 }) => ({ name: dayArchiveName(month), period: month, sha256 })),
  ];
  const findings: MeteringFinding[] = [];
  for (const { name, period, sha256 } of files) {
    const found = await digestOfArchive(directory, name);
    if (found?.equals(sha256) === true) continue;
    findings.push({
      check: "archive-files",
      podId: null,
      period,
      figure: name,
      expected: sha256.toString("hex"),
      found: found?.toString("hex") ?? "no file",
    });
  }
  return findings;
}
