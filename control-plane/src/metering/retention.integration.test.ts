import { createHash } from "node:crypto";
import { appendFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { archiveDays, archiveHours } from "./archive-rollups.ts";
import { archiveSamples, dropArchivedPartitions, type ArchiveOptions } from "./archive-samples.ts";
import { closeMonths } from "./close-months.ts";
import { rollUpDirty } from "./roll-up.ts";
import { sealDays } from "./seal-days.ts";
import { verifyMetering } from "./verify-metering.ts";

const hour = new Date("2026-01-31T10:00:00Z");
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const at = (text: string) => new Date(text);

let db: TestDatabase;
let archive: ArchiveOptions;
let fleet: DeliveringFleet;
let node: FleetNode;
let pod: FleetPod;

beforeAll(async () => {
  db = await createTestDatabase();
  archive = { databaseUrl: db.systemUrl, archiveDirectory: await mkdtemp(join(tmpdir(), "usage-archive-")) };
});
afterAll(async () => {
  await fleet.close();
  await db.close();
  await rm(archive.archiveDirectory, { recursive: true });
});
beforeEach(async () => {
  await fleet?.close();
  await db.system.execute(sql`
    TRUNCATE cloud_pod_allocations, cloud_pod_usage_samples, cloud_pod_usage_late_samples, cloud_pod_usage_hourly, cloud_pod_usage_daily,
      cloud_pod_usage_monthly, usage_closed_months, usage_adjustments, usage_hours, usage_dirty_hours, usage_dirty_days, usage_dirty_months, usage_months`);
  await db.system.execute(sql`DELETE FROM usage_days WHERE dropped_at IS NOT NULL`);
  await db.system.execute(sql`UPDATE usage_days SET sealed_at = NULL, archived_at = NULL, hours_archived_at = NULL`);
  fleet = await deliveringFleet(db, { nodes: 2, podsPerNode: 1, since: hour });
  [node] = fleet.nodes as [FleetNode];
  [pod] = node.pods as [FleetPod];
  await allocate(db.system, pod, { from: hour, to: at("2026-01-31T13:00:00Z") });
});

async function rollUpAll(now: Date): Promise<void> {
  for (;;) if ((await rollUpDirty(db.system, now)).hours === 0) return;
}

/** The minutes of the hour in two halves: the second one is what a host that was away brings later. */
async function deliverMinutes(from: number, to: number, nowMs?: number): Promise<void> {
  for (let minute = from; minute <= to; minute++) {
    const endMs = hour.getTime() + minute * 60_000;
    await fleet.deliver(node, endMs, {
      samples: [sampleOf(pod, endMs, { guestOutBytes: 1_000_000_007n, cpuUsageUs: BigInt(minute) * 1_000_000n })],
      ...(nowMs !== undefined && { nowMs }),
    });
  }
}

const figures = `sample_count, running_ms, cpu_usage_us, cpu_capacity_ms, memory_byte_ms, memory_max_bytes, disk_byte_ms, guest_in_bytes,
  guest_out_bytes, io_read_bytes, io_write_bytes, uptime_ms, core_ms, memory_mb_ms, disk_gb_ms, billable_out_bytes, cost_total`;

async function everyLevel(): Promise<Record<string, unknown>> {
  const query = async (from: string) =>
    (
      await db.system.query({
        text: `SELECT ${figures} FROM ${from} WHERE pod_id = $1 AND sample_count > 0`,
        values: [pod.podId],
      })
    )[0];
  return {
    hour: await query("cloud_pod_usage_hourly"),
    histogram: await db.system.query(
      sql`SELECT cpu_histogram, covered FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND sample_count > 0`,
    ),
    day: await query("cloud_pod_usage_daily"),
    month: await query("cloud_pod_usage_monthly"),
  };
}

async function retain(now: Date): Promise<void> {
  await sealDays(db.system, now);
  await archiveSamples(db.system, archive);
  await dropArchivedPartitions(db.system, archive);
}

async function findings(month = "2026-01"): Promise<unknown> {
  return (await verifyMetering(db.system, month)).findings;
}

test("who seals a day after another one has takes nothing away of what came late in between", async () => {
  await deliverMinutes(1, 30);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  const now = at("2026-02-04T00:00:00Z");
  const late = standingStill(db.system, 1, async () => {
    await retain(now);
    await deliverMinutes(31, 60, at("2026-02-04T01:00:00Z").getTime());
  });
  const sealed = await sealDays(late, now);
  await rollUpAll(at("2026-02-04T02:00:00Z"));
  expect(await everyLevel()).toMatchObject({ hour: { sample_count: 60n }, month: { sample_count: 60n } });
  expect(await findings()).toEqual([]);
  expect(sealed).toEqual([]);
});

test("a batch that comes after its partition was dropped ends in the same figures as one in time", async () => {
  await deliverMinutes(1, 60);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  const truth = await everyLevel();
  expect(await findings()).toEqual([]);

  await db.system.execute(
    sql`TRUNCATE cloud_pod_usage_samples, cloud_pod_usage_hourly, cloud_pod_usage_daily, cloud_pod_usage_monthly, usage_hours`,
  );
  await deliverMinutes(1, 30);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await retain(at("2026-02-04T00:00:00Z"));
  const [partition] = await db.system.query(sql`SELECT to_regclass('cloud_pod_usage_samples_20260131') AS left`);
  expect(partition).toEqual({ left: null });
  await deliverMinutes(31, 50, at("2026-02-04T01:00:00Z").getTime());
  await rollUpAll(at("2026-02-04T02:00:00Z"));
  await deliverMinutes(51, 60, at("2026-02-04T03:00:00Z").getTime());
  await rollUpAll(at("2026-02-04T04:00:00Z"));
  await retain(at("2026-02-04T05:00:00Z"));
  expect(
    await db.system.query(
      sql`SELECT FROM node_coverage JOIN node_spools USING (spool_no) WHERE node_id = ${node.nodeId}`,
    ),
  ).toEqual([]);
  expect(await everyLevel()).toEqual(truth);
  expect(await findings()).toEqual([]);
  const [classes] = await db.system.query(
    sql`SELECT measured_ms, late_ms, missing_ms FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`,
  );
  expect(classes).toEqual({ measured_ms: 1_800_000n, late_ms: 1_800_000n, missing_ms: 0n });
});

test("recomputing such an hour from what is left would make it small, and the proof would say so", async () => {
  await deliverMinutes(1, 30);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await retain(at("2026-02-04T00:00:00Z"));
  await deliverMinutes(31, 60, at("2026-02-04T01:00:00Z").getTime());
  // As if nobody had sealed anything: the samples that are still there are taken for all there were.
  await db.system.execute(sql`UPDATE usage_days SET sealed_at = NULL WHERE day = '2026-01-31'`);
  await rollUpAll(at("2026-02-04T02:00:00Z"));
  const [naive] = await db.system.query(
    sql`SELECT sample_count FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`,
  );
  expect(naive).toEqual({ sample_count: 30n });
  await db.system.execute(sql`UPDATE usage_days SET sealed_at = now() WHERE day = '2026-01-31'`);
  expect(await findings()).toContainEqual(
    expect.objectContaining({
      check: "archive-hours",
      podId: pod.podId,
      figure: "archive_digest",
    }),
  );
});

test("the archive holds the samples of an hour, and the hour their number and digest", async () => {
  await deliverMinutes(1, 60);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await retain(at("2026-02-04T00:00:00Z"));
  const file = await readFile(join(archive.archiveDirectory, "samples/2026-01-31/2026-01-31-10.csv.gz"));
  const lines = gunzipSync(file).toString().trim().split("\n");
  expect(lines[0]).toMatch(/^pod_id,sample_time,spool_no,seq,/);
  expect(lines).toHaveLength(61);
  const [row] = await db.system.query(
    sql`SELECT archive_samples, archive_sha256 FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`,
  );
  expect(row).toEqual({ archive_samples: 60n, archive_sha256: createHash("sha256").update(file).digest() });
});

test("names archived figures and files that are not what they were", async () => {
  await deliverMinutes(1, 60);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await retain(at("2026-02-04T00:00:00Z"));
  const everything = { directory: archive.archiveDirectory, since: at("2026-01-01T00:00:00Z") };
  const named = async () =>
    (await verifyMetering(db.system, "2026-01", everything)).findings.map(({ check, figure }) => `${check} ${figure}`);
  expect(await named()).toEqual([]);
  const double = (factor: string) => ({
    text: `UPDATE cloud_pod_usage_hourly SET cpu_usage_us = cpu_usage_us * ${factor} WHERE pod_id = $1`,
    values: [pod.podId],
  });
  await db.system.execute(double("2"));
  expect(await named()).toEqual(expect.arrayContaining(["archive-hours archive_digest"]));
  await db.system.execute(double("1 / 2"));
  expect(await named()).toEqual([]);
  const name = "samples/2026-01-31/2026-01-31-10.csv.gz";
  await appendFile(join(archive.archiveDirectory, name), "x");
  expect(await named()).toEqual([`archive-files ${name}`]);
  await rm(join(archive.archiveDirectory, name));
  expect(await named()).toEqual([`archive-files ${name}`]);
});

test("samples that their hours do not agree with are kept", async () => {
  await deliverMinutes(1, 60);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await db.system.execute(
    sql`UPDATE cloud_pod_usage_hourly SET guest_in_bytes = guest_in_bytes + 1 WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`,
  );
  await sealDays(db.system, at("2026-02-04T00:00:00Z"));
  const { archived, refused } = await archiveSamples(db.system, archive);
  expect(archived).not.toContain("2026-01-31");
  expect(refused).toMatchObject([{ day: "2026-01-31", findings: [{ podId: pod.podId, figure: "guest_in_bytes" }] }]);
  expect(await dropArchivedPartitions(db.system, archive)).not.toContain("2026-01-31");
});

test("a partition that somebody reads is dropped in a later pass, and nobody waits for it", async () => {
  await deliverMinutes(1, 2);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await sealDays(db.system, at("2026-02-04T00:00:00Z"));
  await archiveSamples(db.system, archive);
  await db.system.transaction(async (reader) => {
    await reader.query(sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`);
    await reader.query(sql`SELECT count(*) FROM cloud_pod_usage_samples`);
    expect(await dropArchivedPartitions(db.system, archive)).not.toContain("2026-01-31");
    // Nor does ingest wait, although the detachment is half done.
    await deliverMinutes(3, 3, at("2026-02-04T01:00:00Z").getTime());
  });
  expect(await dropArchivedPartitions(db.system, archive)).toContain("2026-01-31");
});

test("late traffic of an hour without samples in which the pod ended is charged to its end, and counts once", async () => {
  const endsAt = new Date(hour.getTime() + 20 * 60_000);
  const rows = async () =>
    await db.system.query<Record<string, unknown>>(sql`
      SELECT hour_start, sample_count, guest_out_bytes, billable_out_bytes, cost_total, measured_ms + late_ms AS present_ms, not_running_ms + missing_ms AS absent_ms
      FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start >= ${hour} ORDER BY 1`);
  const month = async () =>
    await db.system.query(
      sql`SELECT sample_count, guest_out_bytes, cost_total FROM cloud_pod_usage_monthly WHERE pod_id = ${pod.podId}`,
    );
  const begin = async () => {
    await db.system.execute(
      sql`UPDATE cloud_pod_allocations SET valid = tstzrange(lower(valid), ${endsAt}) WHERE pod_id = ${pod.podId}`,
    );
  };
  await begin();
  // The container runs on for a while after its pod has ended, into an hour in which the pod did not exist.
  await deliverMinutes(1, 90);
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  const [truth, monthly] = [await rows(), await month()];
  expect(truth[0]).toMatchObject({ billable_out_bytes: 20n * 1_000_000_007n });
  await db.system.execute(
    sql`TRUNCATE cloud_pod_usage_samples, cloud_pod_usage_hourly, cloud_pod_usage_daily, cloud_pod_usage_monthly, usage_hours`,
  );
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await retain(at("2026-02-04T00:00:00Z"));
  for (const [from, to, day] of [
    [1, 70, "05"],
    [71, 80, "06"],
    [81, 90, "07"],
  ] as const) {
    await deliverMinutes(from, to, at(`2026-02-${day}T01:00:00Z`).getTime());
    await rollUpAll(at(`2026-02-${day}T02:00:00Z`));
  }
  expect(await rows()).toEqual(truth);
  expect(await month()).toEqual(monthly);
  expect(await findings()).toEqual([]);
});

test("an allocation that is ended afterwards takes its absent minutes with it", async () => {
  await rollUpAll(at("2026-01-31T15:00:00Z"));
  await retain(at("2026-02-04T00:00:00Z"));
  await db.system.execute(sql`
    UPDATE cloud_pod_allocations SET valid = tstzrange(lower(valid), ${new Date(hour.getTime() + 20 * 60_000)}) WHERE pod_id = ${pod.podId}`);
  await rollUpAll(at("2026-02-05T00:00:00Z"));
  const rows = await db.system.query(sql`
    SELECT not_running_ms + missing_ms AS absent_ms, disk_gb_ms FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start >= ${hour} ORDER BY hour_start LIMIT 2`);
  expect(rows).toEqual([
    { absent_ms: 1_200_000n, disk_gb_ms: 24_000_000n },
    { absent_ms: 0n, disk_gb_ms: 0n },
  ]);
  expect(await findings()).toEqual([]);
});

test("what arrives after the month was closed is an adjustment; the billed figures stay, whoever asks", async () => {
  await deliverMinutes(1, 30);
  await rollUpAll(at("2026-02-01T01:00:00Z"));
  // The host has not delivered everything up to the end of the month.
  expect(await closeMonths(db.system, at("2026-02-01T01:00:00Z"))).toEqual([]);
  await rollUpAll(at("2026-02-04T01:06:00Z"));
  await retain(at("2026-02-04T01:06:00Z"));
  expect(await closeMonths(db.system, at("2026-02-04T01:06:00Z"))).toEqual([
    { tenantId: pod.tenantId, yearMonth: "2026-01" },
  ]);
  const month = async () =>
    (
      await db.system.query<Record<string, unknown>>(
        sql`SELECT * FROM cloud_pod_usage_monthly WHERE pod_id = ${pod.podId}`,
      )
    )[0];
  const billed = await month();
  expect(billed?.["billed_cost"]).toBe(billed?.["cost_total"]);

  await deliverMinutes(31, 45, at("2026-02-05T01:00:00Z").getTime());
  await rollUpAll(at("2026-02-05T02:00:00Z"));
  await deliverMinutes(46, 60, at("2026-02-05T03:00:00Z").getTime());
  await Promise.all([rollUpAll(at("2026-02-05T04:00:00Z")), rollUpAll(at("2026-02-05T04:00:00Z"))]);
  const corrected = await month();
  expect(corrected?.["billed_cost"]).toBe(billed?.["billed_cost"]);
  expect(corrected?.["billed_uptime_ms"]).toBe(1_800_000n);
  expect(corrected?.["uptime_ms"]).toBe(3_600_000n);
  const adjustments = await db.system.query<{ amount: string }>(
    sql`SELECT amount FROM usage_adjustments WHERE pod_id = ${pod.podId}`,
  );
  expect(adjustments).toHaveLength(2);
  expect(await findings()).toEqual([]);
  await expect(
    db.system.execute(sql`UPDATE cloud_pod_usage_monthly SET billed_cost = 0 WHERE pod_id = ${pod.podId}`),
  ).rejects.toThrow("is closed");
  await db.system.execute(sql`DELETE FROM usage_adjustments WHERE id = (SELECT id FROM usage_adjustments LIMIT 1)`);
  expect(await findings()).toContainEqual(expect.objectContaining({ check: "bills", podId: pod.podId }));
});

test("hours go 30 days after their month was closed, days after a year, and what still comes is added", async () => {
  await deliverMinutes(1, 30);
  await rollUpAll(at("2026-02-04T01:06:00Z"));
  await retain(at("2026-02-04T01:06:00Z"));
  await closeMonths(db.system, at("2026-02-04T01:06:00Z"));
  expect(await archiveHours(db.system, archive, at("2026-03-05T00:00:00Z"))).toEqual([]);
  // Nobody has proved since that the month is right; nor would a proof from before something late was taken in.
  const proved = async (since: string, disagreements = 0) =>
    await db.system.execute(sql`
      INSERT INTO usage_verifications (year_month, verified_at, findings_count, disagreements_count, findings)
      SELECT '2026-01', max(rolled_at) + ${since}::interval, 1, ${disagreements}, '[]' FROM cloud_pod_usage_monthly`);
  expect(await archiveHours(db.system, archive, at("2026-03-06T02:00:00Z"))).toEqual([]);
  await proved("-1 second");
  expect(await archiveHours(db.system, archive, at("2026-03-06T02:00:00Z"))).toEqual([]);
  await proved("1 second", 1);
  expect(await archiveHours(db.system, archive, at("2026-03-06T02:00:00Z"))).toEqual([]);
  await proved("2 seconds");
  expect(await archiveHours(db.system, archive, at("2026-03-06T02:00:00Z"))).toEqual(["2026-01-31"]);
  const count = async (table: "cloud_pod_usage_hourly" | "cloud_pod_usage_daily") =>
    (
      await db.system.query<{ rows: bigint }>({
        text: `SELECT count(*) AS rows FROM ${table} WHERE pod_id = $1`,
        values: [pod.podId],
      })
    )[0]?.rows;
  expect(await count("cloud_pod_usage_hourly")).toBe(0n);

  const totals = async () =>
    (
      await db.system.query(
        sql`SELECT sample_count, uptime_ms, guest_out_bytes, disk_gb_ms FROM cloud_pod_usage_monthly WHERE pod_id = ${pod.podId}`,
      )
    )[0];
  const disk = { disk_gb_ms: 3n * 20n * 3_600_000n };
  for (const [first, last, received] of [
    [31, 40, "2026-03-07T00:00:00Z"],
    [41, 45, "2026-03-08T00:00:00Z"],
  ] as const) {
    await deliverMinutes(first, last, at(received).getTime());
    await rollUpDirty(db.system, at(received));
    expect(await totals()).toEqual({
      sample_count: BigInt(last),
      uptime_ms: BigInt(last) * 60_000n,
      guest_out_bytes: BigInt(last) * 1_000_000_007n,
      ...disk,
    });
  }
  expect(await archiveDays(db.system, archive, at("2027-01-15T00:00:00Z"))).toEqual([]);
  expect(await archiveDays(db.system, archive, at("2027-02-03T00:00:00Z"))).toEqual(["2026-01"]);
  expect(await count("cloud_pod_usage_daily")).toBe(0n);
  for (const [first, last, received] of [
    [46, 50, "2027-02-04T00:00:00Z"],
    [51, 60, "2027-02-05T00:00:00Z"],
  ] as const) {
    await deliverMinutes(first, last, at(received).getTime());
    await rollUpDirty(db.system, at(received));
    expect(await totals()).toEqual({
      sample_count: BigInt(last),
      uptime_ms: BigInt(last) * 60_000n,
      guest_out_bytes: BigInt(last) * 1_000_000_007n,
      ...disk,
    });
  }
  expect(await findings()).toEqual([]);
});

test("sealing waits for nobody who is silent, and does nothing before its time", async () => {
  await deliverMinutes(1, 1);
  expect(await sealDays(db.system, new Date(hour.getTime() + 3 * dayMs))).not.toContain("2026-01-31");
  expect(await sealDays(db.system, at("2026-02-04T00:00:00Z"))).toContain("2026-01-31");
  expect(await sealDays(db.system, at("2026-02-04T00:00:00Z"))).toEqual([]);
});
