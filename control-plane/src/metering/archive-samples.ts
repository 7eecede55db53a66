import pg from "pg";
import { sqlState, type Database } from "../platform/database.ts";
import { noticesLoss } from "../platform/lost-connections.ts";
import { sql } from "../platform/sql.ts";
import { sampleArchiveName, writeArchive } from "./archive-file.ts";
import { beginArchiving, holdTurn } from "./archive-turn.ts";
import { lockPeriod } from "./lock-period.ts";
import { hoursOfDay, preferHashingOfMany, type MeteringFinding } from "./verify-differences.ts";
import { archivedBase, digestOf, samplesAgainstHours } from "./verify-hours.ts";

const hourMs = 3_600_000;
const detachLockTimeout = "2s";
const lockNotAvailable = "55P03";

/** What retention needs beside the database. */
export interface ArchiveOptions {
  /** For connections of their own: COPY and DETACH cannot use a pool's pipelined ones. */
  readonly databaseUrl: string;
  /** `CLOUDPODS_ARCHIVE_DIR` */
  readonly archiveDirectory: string;
}

/** Runs `work` on a connection of its own; a statement may take long. */
export async function withOwnClient<T>(databaseUrl: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({
    ...noticesLoss(databaseUrl),
    application_name: "cloudpods-archive",
    connectionTimeoutMillis: 10_000,
  });
  client.on("error", () => {}); // the statement under way, or the next one, fails with it
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** What became of sealed days. */
export interface SampleArchiving {
  readonly archived: readonly string[];
  /** Days whose hours are not what their samples say: kept, until somebody has looked. */
  readonly refused: readonly { readonly day: string; readonly findings: readonly MeteringFinding[] }[];
}

/**
 * Writes the samples of sealed days to the archive, a file per hour, and notes count and digests in the hours. Nobody
 * changes such samples any more; that the hours say the same is proved before, because afterwards it cannot be.
 * Interrupted, it writes the day again.
 * @throws ArchiveTurnLost
 */
export async function archiveSamples(db: Database, options: ArchiveOptions): Promise<SampleArchiving> {
  const turn = await beginArchiving(db);
  const days = await db.query<{ starts: Date }>(sql`
    SELECT day::timestamp AT TIME ZONE 'UTC' AS starts FROM usage_days
    WHERE sealed_at IS NOT NULL AND archived_at IS NULL AND dropped_at IS NULL ORDER BY day`);
  const archived: string[] = [];
  const refused: SampleArchiving["refused"][number][] = [];
  for (const { starts } of days) {
    const day = starts.toISOString().slice(0, 10);
    const isThere = await partitionExists(db, day);
    const findings = isThere ? await findDisagreement(db, starts) : [];
    if (findings.length > 0) {
      refused.push({ day, findings });
      continue;
    }
    for (let hour = 0; isThere && hour < 24; hour++)
      await archiveHour(db, options, turn, new Date(starts.getTime() + hour * hourMs));
    await db.transaction(async (tx) => {
      await holdTurn(tx, turn);
      await tx.execute(sql`UPDATE usage_days SET archived_at = now() WHERE day = ${day}`);
    });
    archived.push(day);
  }
  return { archived, refused };
}

async function findDisagreement(db: Database, starts: Date): Promise<MeteringFinding[]> {
  return await db.transaction(async (tx) => {
    await preferHashingOfMany(tx);
    for (const hour of hoursOfDay(starts)) {
      const findings = await tx.query<MeteringFinding>(sql`${samplesAgainstHours(hour)} LIMIT 20`);
      if (findings.length > 0) return findings;
    }
    return [];
  });
}

async function archiveHour(db: Database, options: ArchiveOptions, turn: bigint, hourStart: Date): Promise<void> {
  const hourEnd = new Date(hourStart.getTime() + hourMs);
  const [from, to] = [hourStart.toISOString(), hourEnd.toISOString()];
  const file = await withOwnClient(options.databaseUrl, (client) =>
    writeArchive(
      client,
      options.archiveDirectory,
      sampleArchiveName(hourStart),
      `SELECT * FROM cloud_pod_usage_samples WHERE sample_time > '${from}' AND sample_time <= '${to}' ORDER BY pod_id, sample_time, spool_no, seq`,
      () => holdTurn(db, turn),
    ),
  );
  await db.transaction(async (tx) => {
    await holdTurn(tx, turn);
    await lockPeriod(tx, "hour", hourStart);
    await tx.query(sql`SELECT set_config('statement_timeout', '10min', true)`);
    await tx.execute(sql`
      UPDATE cloud_pod_usage_hourly h SET archive_sha256 = ${file.sha256},
        archive_digest = (SELECT ${digestOf("base")} FROM ${archivedBase} AS base), archive_samples = coalesce((
        SELECT n.samples FROM (
          SELECT pod_id, sum(sample_count) AS samples FROM cloud_pod_usage_samples
          WHERE sample_time > ${hourStart} AND sample_time <= ${hourEnd} GROUP BY pod_id) AS n WHERE n.pod_id = h.pod_id), 0)
      WHERE h.hour_start = ${hourStart} AND NOT h.supplement`);
  });
}

/**
 * Detaches and drops the partitions of archived days. CONCURRENTLY, because a plain DROP behind one open
 * reader would keep every insert waiting; what cannot be had within two seconds is tried in the next pass.
 * @returns the days.
 */
export async function dropArchivedPartitions(db: Database, options: ArchiveOptions): Promise<string[]> {
  const days = await db.query<{ day: string }>(
    sql`SELECT day::text FROM usage_days WHERE archived_at IS NOT NULL AND dropped_at IS NULL ORDER BY day`,
  );
  const dropped: string[] = [];
  for (const { day } of days) {
    try {
      await withOwnClient(options.databaseUrl, (client) => dropPartition(client, partitionName(day)));
    } catch (error) {
      if (sqlState(error) !== lockNotAvailable) throw error;
      continue;
    }
    await db.execute(sql`UPDATE usage_days SET dropped_at = now() WHERE day = ${day}`);
    dropped.push(day);
  }
  await dropCoverage(db);
  return dropped;
}

/** What covered dropped days is of no use any more, whenever it came: of a frozen hour it decides nothing. */
async function dropCoverage(db: Database): Promise<void> {
  await db.execute(sql`
    DELETE FROM node_coverage c USING usage_days d
    WHERE c.covers_to <= (SELECT (max(day) + 1)::timestamp AT TIME ZONE 'UTC' FROM usage_days WHERE dropped_at IS NOT NULL)
      AND d.day = ((c.covers_to - interval '1 microsecond') AT TIME ZONE 'UTC')::date AND d.dropped_at IS NOT NULL`);
}

async function dropPartition(client: pg.Client, name: string): Promise<void> {
  await client.query(`SET lock_timeout = '${detachLockTimeout}'`);
  const { rows } = await client.query<{ pending: boolean }>(
    "SELECT inhdetachpending AS pending FROM pg_inherits WHERE inhparent = 'cloud_pod_usage_samples'::regclass AND inhrelid = to_regclass($1)",
    [name],
  );
  const attached = rows[0];
  // A detach that was interrupted is finished; the name is made of digits.
  if (attached !== undefined)
    await client.query(
      `ALTER TABLE cloud_pod_usage_samples DETACH PARTITION ${name} ${attached.pending ? "FINALIZE" : "CONCURRENTLY"}`,
    );
  await client.query(`DROP TABLE IF EXISTS ${name}`);
}

function partitionName(day: string): string {
  return `cloud_pod_usage_samples_${day.replaceAll("-", "")}`;
}

async function partitionExists(db: Database, day: string): Promise<boolean> {
  const [row] = await db.query<{ there: boolean }>(sql`SELECT to_regclass(${partitionName(day)}) IS NOT NULL AS there`);
  return row?.there === true;
}
