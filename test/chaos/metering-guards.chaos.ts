import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { rollUpDirty } from "../../control-plane/src/metering/roll-up.ts";
import { verifyMetering } from "../../control-plane/src/metering/verify-metering.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { differences, storedFigures } from "../support/stored-figures.ts";
import { measureInShort, type ShortWay } from "../support/story-in-short.ts";
import { shownAt } from "../support/usage-truth/kernel.ts";
import { tellStory } from "../support/usage-truth/tell-story.ts";
import { trueFigures } from "../support/usage-truth/true-figures.ts";

/*
 * Whether the comparison of metering.chaos.ts would notice: each guard of metering is taken away once, and the same
 * truth and the same comparison must find figures that differ. Taken away elsewhere, beside what they guard:
 * - the lock and the watermark of a spool, and the mark of an hour: samples-intake/exactly-once.integration.test.ts
 *   and metering/roll-up.integration.test.ts;
 * - the locks of an hour and of a day: metering/racing-roll-ups.integration.test.ts and
 *   metering/sealing-while-storing.integration.test.ts;
 * - that a sealed hour is never made from what is left of it: metering/retention.integration.test.ts;
 * - the life of a roll-up between any two statements: metering/killed.chaos.test.ts.
 */
const hourMs = 3_600_000;
const story = tellStory({
  seed: 11,
  fromMs: Date.UTC(2026, 1, 28, 21),
  toMs: Date.UTC(2026, 2, 1, 1),
  hosts: 2,
  pods: 5,
  sampleMs: 60_000,
  offlineMs: 1.5 * hourMs,
  smallSpoolBytes: 1e9,
  eventMs: 0.7 * hourMs,
  absenceMs: 2 * hourMs,
});
const truth = trueFigures(story, () => true);
/**
 * Merging sheds the resolution of the percentile, and of traffic when something of which the agent knows nothing
 * changes inside the hour: a price, or when a pod is charged from.
 */
const shed = /cpu_p95|billable_|plan_out|overage|cost_network|cost_total/;
const withoutShed = ({ differing, aside }: Measured): Measured => ({
  differing: differing.filter((line) => !shed.test(line)),
  aside,
});
/** No room for an hour of minutes. */
const small = 60_000;

interface Measured {
  readonly differing: readonly string[];
  readonly aside: readonly string[];
}

async function measured(way: ShortWay): Promise<Measured> {
  const db = await createTestDatabase();
  try {
    const aside = await measureInShort(db, story, way);
    return { differing: differences(truth, await storedFigures(db.system)), aside };
  } finally {
    await db.close();
  }
}

const sums = [
  "runningMs",
  "cpuUsageUs",
  "memoryByteMs",
  "diskByteMs",
  "guestInBytes",
  "guestOutBytes",
  "ioReadBytes",
  "ioWriteBytes",
] as const;

/** Two samples as one, whatever lies between them. */
function together(first: Sample, second: Sample): Sample {
  const added = Object.fromEntries(sums.map((name) => [name, first[name] + second[name]]));
  return { ...second, ...added, startMs: first.startMs, runningMs: second.endMs - first.startMs, sampleCount: 2 };
}

/** The batches with neighbouring samples of a pod put together where somebody thinks that they may be. */
function mergedWhere(
  batches: readonly SampleBatch[],
  mayMerge: (first: Sample, second: Sample) => boolean,
): SampleBatch[] {
  const next = new Map<string, Sample>();
  // From the end: the earlier sample is left out, and the later one stands for both.
  const merged = new Map<Sample, Sample>();
  const left = new Set<Sample>();
  for (const sample of batches.flatMap(({ samples }) => samples).toReversed()) {
    const later = next.get(sample.podId);
    if (later !== undefined && !merged.has(later) && mayMerge(sample, later)) {
      merged.set(later, together(sample, later));
      left.add(sample);
      next.delete(sample.podId);
    } else next.set(sample.podId, sample);
  }
  return batches.map((batch) => ({
    ...batch,
    samples: batch.samples.filter((sample) => !left.has(sample)).map((sample) => merged.get(sample) ?? sample),
  }));
}

describe("the same story, measured", () => {
  test("as it should be, is the truth", async () => {
    expect(await measured({})).toEqual({ differing: [], aside: [] });
  });

  test("with spools that merge, and nothing acknowledged before the end, is the truth", async () => {
    expect(withoutShed(await measured({ spoolLimitBytes: small }))).toEqual({ differing: [], aside: [] });
  });

  test("with batches that are merged although they were offered, is not", async () => {
    const { differing, aside } = withoutShed(await measured({ spoolLimitBytes: small, forgetsOffers: true }));
    expect(differing).not.toEqual([]);
    expect(aside).toContain("RANGE_OVERLAPS");
  });

  test("with samples that are merged across the hour, is not", async () => {
    const isAtHour = (first: Sample, second: Sample) =>
      first.endMs === second.startMs && first.endMs % BigInt(hourMs) === 0n && first.incarnation === second.incarnation;
    const { differing, aside } = await measured({ alter: (batches) => mergedWhere(batches, isAtHour) });
    expect(aside).toEqual([]);
    expect(differing).not.toEqual([]);
  });

  test("with a gap that is merged over, is not", async () => {
    const isOverGap = (first: Sample, second: Sample) => first.endMs < second.startMs;
    const { differing } = await measured({ alter: (batches) => mergedWhere(batches, isOverGap) });
    expect(differing.some((line) => line.includes("cost_"))).toBe(true);
  });

  test("with batches that count as often as they come, is not", async () => {
    const again = (batches: readonly SampleBatch[]) =>
      batches.flatMap((batch) => {
        const copy = { ...batch, spoolId: batch.spoolId.replace(/^./, (digit) => (digit === "0" ? "1" : "0")) };
        return batch.seqFrom % 40n === 0n ? [batch, copy] : [batch];
      });
    expect((await measured({ alter: again })).differing).not.toEqual([]);
  });

  test("with one batch that never comes, is not", async () => {
    const { differing } = await measured({ alter: (batches) => batches.toSpliced(Math.floor(batches.length / 2), 1) });
    expect(differing).not.toEqual([]);
  });

  test("with times of the wall clock, is not", async () => {
    const { differing, aside } = await measured({ trustsWallClock: true });
    expect([...differing, ...aside]).not.toEqual([]);
    expect(differing.some((line) => line.includes("uptime_ms"))).toBe(true);
  });

  test("with counters that pass through floating point numbers, is not", async () => {
    const show: typeof shownAt = (guest, run, atMs) => {
      const shown = shownAt(guest, run, atMs);
      const { cpu, in: received, out, read, write } = shown.counters;
      const rounded = (counter: bigint) => BigInt(Number(counter));
      const counters = {
        cpu: rounded(cpu),
        in: rounded(received),
        out: rounded(out),
        read: rounded(read),
        write: rounded(write),
      };
      return { ...shown, counters };
    };
    expect((await measured({ show })).differing).not.toEqual([]);
  });
});

describe("one figure that is wrong", () => {
  let db: TestDatabase;
  beforeAll(async () => {
    db = await createTestDatabase();
    await measureInShort(db, story, {});
  });
  afterAll(() => db.close());

  test.each([
    ["cloud_pod_usage_hourly", "hour_start"],
    ["cloud_pod_usage_daily", "date"],
    ["cloud_pod_usage_monthly", "year_month"],
  ])("in %s is named", async (table, time) => {
    const change = async (amount: string, bytes: number) =>
      await db.system.execute({
        text: `UPDATE ${table} SET cost_disk = cost_disk + ${amount}, guest_out_bytes = guest_out_bytes + ${bytes}
          WHERE (pod_id, ${time}) = (SELECT pod_id, ${time} FROM ${table} ORDER BY pod_id, ${time} LIMIT 1)`,
        values: [],
      });
    await change("0.0000000001", 1);
    const named = differences(truth, await storedFigures(db.system));
    const names = new Set(named.map((line) => /: (\w+) is/.exec(line)?.[1]));
    expect(named.length).toBe(3);
    expect(names).toEqual(new Set(["cost_disk", "cost_total", "guest_out_bytes"]));
    await change("-0.0000000001", -1);
    expect(differences(truth, await storedFigures(db.system))).toEqual([]);
  });

  test("a sample that is one byte off is found in its hour, day and month, where everything else agrees", async () => {
    await db.system.execute(sql`
      WITH changed AS (
        UPDATE cloud_pod_usage_samples SET io_read_bytes = io_read_bytes + 1
        WHERE (pod_id, sample_time) = (SELECT pod_id, sample_time FROM cloud_pod_usage_samples ORDER BY sample_time, pod_id LIMIT 1)
        RETURNING pod_id, sample_time)
      INSERT INTO usage_dirty_hours (hour_start, pod_id) SELECT date_bin('1 hour', sample_time, '2000-01-01Z'), pod_id FROM changed`);
    while ((await rollUpDirty(db.system, new Date(story.toMs + 2 * hourMs))).hours > 0);
    expect((await verifyMetering(db.system, "2026-02")).findings).toEqual([]);
    const named = differences(truth, await storedFigures(db.system));
    expect(named.map((line) => line.split(" ")[0])).toEqual(["hours", "days", "months"]);
  });
});
