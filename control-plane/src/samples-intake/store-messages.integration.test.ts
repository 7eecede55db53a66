import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { batchOf, payloadOf, sampleOf, seedFleet, type FleetNode } from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { hostingCache } from "./hosting.ts";
import { openStorePool, type StorePool } from "./store-pool.ts";
import { storeMessages, type IncomingMessage, type StoreContext } from "./store-messages.ts";
import { storePatiently } from "./store-patiently.ts";
import { refuseSpoolsOfNode, trustSpools } from "./trusted-spools.ts";
import { usageDay, usageDays } from "./usage-days.ts";

let db: TestDatabase;
let pool: StorePool;
let node: FleetNode;
let other: FleetNode;
let spoolId: string;
let context: StoreContext;
const minuteMs = 60_000;
/** The end of the last whole minute. */
const endMs = Math.floor(Date.now() / minuteMs) * minuteMs;
const pod = () => node.pods[0] ?? expect.fail("the fleet has no pod");

beforeAll(async () => {
  db = await createTestDatabase();
  pool = openStorePool(db.systemUrl, 4);
});
afterAll(async () => {
  await pool.close();
  await db.close();
});
beforeEach(async () => {
  [node, other] = (await seedFleet(db.system, { nodes: 2, podsPerNode: 3 })) as [FleetNode, FleetNode];
  spoolId = newId();
  context = { pool, hosting: hostingCache(pool, Date.now), days: usageDays(pool), clock: Date.now };
});

const message = (payload: Uint8Array, nodeId = node.nodeId): IncomingMessage => ({
  nodeId,
  payload,
  receivedAtMs: Date.now(),
});
const store = (...payloads: Uint8Array[]) =>
  storeMessages(
    context,
    payloads.map((payload) => message(payload)),
  );
const batch = (seq: number, changes: Parameters<typeof batchOf>[4] = {}) =>
  payloadOf(batchOf(node, spoolId, { from: seq }, endMs - 60_000 * (100 - seq), changes));

async function count(table: string, nodeId = node.nodeId): Promise<number> {
  const text =
    table.includes("samples") && !table.includes("rejected")
      ? `SELECT count(*)::integer AS n FROM ${table} JOIN node_spools USING (spool_no) WHERE node_id = $1`
      : `SELECT count(*)::integer AS n FROM ${table} WHERE node_id = $1`;
  const [row] = await db.system.query<{ n: number }>({ text, values: [nodeId] });
  return row?.n ?? 0;
}

describe("a batch", () => {
  test("is stored, covered, marked and acknowledged, once", async () => {
    const first = await store(batch(1));
    expect(first).toMatchObject({
      samplesStored: 3,
      verdicts: ["new"],
      acknowledgements: [{ nodeId: node.nodeId, spoolId, contiguousSeq: 1n, ranges: [] }],
    });
    const again = await store(batch(1), batch(2), batch(2));
    expect(again).toMatchObject({
      samplesStored: 3,
      verdicts: ["duplicate", "new", "duplicate"],
      acknowledgements: [{ contiguousSeq: 2n }],
    });
    expect(await count("cloud_pod_usage_samples")).toBe(6);
    const covered = await db.system.query(
      sql`SELECT FROM node_coverage JOIN node_spools USING (spool_no) WHERE node_id = ${node.nodeId}`,
    );
    expect(covered).toHaveLength(2);
  });

  test("keeps every value of its samples", async () => {
    const big = 2n ** 63n - 1n;
    const sample = sampleOf(pod(), endMs, {
      guestInBytes: big,
      memoryByteMs: 2n ** 53n + 1n,
      cpuMaxBasisPoints: 2_147_483_647,
      incarnation: "größe:1",
    });
    await store(batch(1, { samples: [sample] }));
    const [row] = await db.system.query(sql`SELECT * FROM cloud_pod_usage_samples WHERE pod_id = ${pod().podId}`);
    expect(row).toMatchObject({
      sample_time: new Date(endMs),
      start_time: new Date(endMs - minuteMs),
      seq: 1n,
      running_ms: 60_000,
      cpu_usage_us: sample.cpuUsageUs,
      cpu_max_basis_points: 2_147_483_647,
      memory_byte_ms: 2n ** 53n + 1n,
      memory_max_bytes: sample.memoryMaxBytes,
      disk_byte_ms: sample.diskByteMs,
      disk_max_bytes: sample.diskMaxBytes,
      guest_in_bytes: big,
      guest_out_bytes: sample.guestOutBytes,
      io_read_bytes: sample.ioReadBytes,
      io_write_bytes: sample.ioWriteBytes,
      sample_count: 1,
      cores: 2,
      memory_mb: 1024,
      disk_gb: 20,
      incarnation: "größe:1",
    });
  });

  test("marks each hour that it touches, once per transaction", async () => {
    const onTheHour = Math.floor(endMs / 3_600_000) * 3_600_000 - 3_600_000;
    const across = node.pods.map((p) => sampleOf(p, onTheHour + 30_000));
    await store(
      batch(1, { samples: across }),
      batch(2, { samples: across.map((s) => ({ ...s, endMs: s.endMs + 1n })) }),
    );
    const marks = await db.system.query<{ hour_start: Date }>(
      sql`SELECT hour_start FROM usage_dirty_hours WHERE node_id = ${node.nodeId} ORDER BY 1`,
    );
    expect(marks.map((mark) => mark.hour_start.getTime())).toEqual([onTheHour - 3_600_000, onTheHour]);
  });

  test("that leaves a hole waits above the watermark until the hole is filled or given up", async () => {
    expect(await store(batch(1), batch(4))).toMatchObject({
      acknowledgements: [{ contiguousSeq: 1n, ranges: [{ from: 4n, to: 4n }] }],
    });
    expect(await store(batch(2))).toMatchObject({
      acknowledgements: [{ contiguousSeq: 2n, ranges: [{ from: 4n, to: 4n }] }],
    });
    expect(await store(batch(6, { lowestUnackedSeq: 6n }))).toMatchObject({
      acknowledgements: [{ contiguousSeq: 6n, ranges: [] }],
    });
    const gaps = await db.system.query(
      sql`SELECT seq_from, seq_to FROM node_spool_gaps JOIN node_spools USING (spool_no) WHERE node_id = ${node.nodeId} ORDER BY 1`,
    );
    expect(gaps).toEqual([
      { seq_from: 3n, seq_to: 3n },
      { seq_from: 5n, seq_to: 5n },
    ]);
    expect(await store(batch(3))).toMatchObject({ verdicts: ["new"] });
    expect(await store(batch(3))).toMatchObject({ verdicts: ["duplicate"] });
  });

  test("of a foreign spool does not touch the numbers of its owner", async () => {
    await storeMessages(context, [message(payloadOf(batchOf(other, spoolId, { from: 1 }, endMs)), other.nodeId)]);
    expect(await store(batch(1))).toMatchObject({ verdicts: ["new"], samplesStored: 3 });
  });
});

describe("a sample that cannot be believed is kept aside with its reason, and the batch counts", () => {
  const rejections = async () => {
    const rows = await db.system.query<{ reason: string }>(
      sql`SELECT reason FROM usage_rejected_samples WHERE node_id = ${node.nodeId}`,
    );
    return rows.map((row) => row.reason);
  };
  const reject = async (changes: Partial<ReturnType<typeof sampleOf>>) => {
    const outcome = await store(
      batch(1, { samples: [sampleOf(pod(), endMs), sampleOf(pod(), endMs - minuteMs, changes)] }),
    );
    expect(outcome).toMatchObject({ samplesStored: 1, acknowledgements: [{ contiguousSeq: 1n }] });
    return await rejections();
  };

  test("from the future", async () => {
    const future = BigInt(Date.now() + 6 * minuteMs);
    expect(await reject({ startMs: future - 60_000n, endMs: future })).toEqual(["TIME_IN_FUTURE"]);
  });
  test("of a pod of another node", async () => {
    expect(await reject({ podId: other.pods[0]?.podId ?? "" })).toEqual(["POD_NOT_PLACED_HERE"]);
  });
  test("of no pod at all", async () => {
    expect(await reject({ podId: "'; DROP TABLE nodes" })).toEqual(["POD_NOT_PLACED_HERE"]);
  });
  test("with a negative counter", async () => {
    expect(await reject({ guestInBytes: -1n })).toEqual(["VALUE_OUT_OF_RANGE"]);
  });
  test("that ran longer than it lasted", async () => {
    expect(await reject({ runningMs: 60_001n })).toEqual(["VALUE_OUT_OF_RANGE"]);
  });
  test("that ends before it starts", async () => {
    expect(await reject({ startMs: BigInt(endMs) })).toEqual(["INTERVAL_INVALID"]);
  });

  test("a removed node", async () => {
    await db.system.execute(sql`UPDATE nodes SET removed_at = now() WHERE id = ${node.nodeId}`);
    expect(await store(batch(1))).toMatchObject({
      samplesStored: 0,
      rejected: Array(3).fill("NODE_REMOVED"),
      acknowledgements: [{ contiguousSeq: 1n }],
    });
  });

  test("a spool that is written under a revoked certificate", async () => {
    await store(batch(1));
    await db.system.execute(sql`UPDATE node_spools SET refused_since = now() WHERE node_id = ${node.nodeId}`);
    const completeUntil = () =>
      db.system.query(sql`SELECT complete_until FROM node_spools WHERE node_id = ${node.nodeId}`);
    const before = await completeUntil();
    expect(await store(batch(2))).toMatchObject({ samplesStored: 0, rejected: Array(3).fill("CERTIFICATE_REVOKED") });
    expect(await completeUntil()).toEqual(before);
  });
});

describe("after a machine was replaced", () => {
  const replace = async () => {
    await db.system.execute(sql`
      INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, revoked_at)
      VALUES (${`old${node.nodeId}`}, ${node.nodeId}, '', '', now(), now(), now())`);
    await refuseSpoolsOfNode(db.system, node.nodeId);
  };

  test("what its spool still held is rejected", async () => {
    await store(batch(1));
    await replace();
    expect(await store(batch(2))).toMatchObject({ samplesStored: 0, rejected: Array(3).fill("CERTIFICATE_REVOKED") });
  });

  test("a spool that nobody vouches for waits unacknowledged; vouched for, it counts", async () => {
    await replace();
    expect(await store(batch(1))).toMatchObject({ samplesStored: 0, verdicts: ["unvouched"], acknowledgements: [] });
    expect(await count("usage_rejected_samples")).toBe(0);
    await trustSpools(db.system, [{ nodeId: node.nodeId, spoolId }]);
    expect(await store(batch(1))).toMatchObject({ samplesStored: 3, acknowledgements: [{ contiguousSeq: 1n }] });
  });

  test("a machine that goes on with the same spool is believed again", async () => {
    await store(batch(1));
    await replace();
    await trustSpools(db.system, [{ nodeId: node.nodeId, spoolId }]);
    expect(await store(batch(2))).toMatchObject({ samplesStored: 3, rejected: [] });
  });
});

describe("a pod that moved", () => {
  const leave = (at: number) =>
    db.system.execute(
      sql`UPDATE cloud_pod_placements SET placed_to = to_timestamp(${at / 1000}) WHERE pod_id = ${pod().podId}`,
    );

  test("counts on its former host until it left, with a minute's tolerance", async () => {
    await leave(endMs - 10 * minuteMs);
    const samples = [-10, -9, -8].map((minute) => sampleOf(pod(), endMs + minute * minuteMs));
    expect(await store(batch(1, { samples }))).toMatchObject({ samplesStored: 2, rejected: ["POD_NOT_PLACED_HERE"] });
  });

  test("counts even weeks later", async () => {
    await leave(endMs - 20 * 86_400_000);
    const outcome = await store(batch(1, { samples: [sampleOf(pod(), endMs - 21 * 86_400_000)] }));
    expect(outcome).toMatchObject({ samplesLate: 1, rejected: [] });
  });

  test("counts at once on its new host, although the host is cached without it", async () => {
    await store(batch(1));
    const newcomer = other.pods[0] ?? expect.fail("the fleet has no pod");
    await db.system.execute(
      sql`UPDATE cloud_pod_placements SET node_id = ${node.nodeId} WHERE pod_id = ${newcomer.podId}`,
    );
    expect(await store(batch(2, { samples: [sampleOf(newcomer, endMs)] }))).toMatchObject({
      samplesStored: 1,
      rejected: [],
    });
  });
});

describe("a sealed day", () => {
  const longAgoMs = endMs - 40 * 86_400_000;
  const old = (seq: number) => payloadOf(batchOf(node, spoolId, { from: seq }, longAgoMs));
  async function seal(): Promise<void> {
    // As sealing does: the day first, then its partition.
    const day = new Date(longAgoMs - 1).toISOString().slice(0, 10);
    await db.system.execute(sql`UPDATE usage_days SET sealed_at = now() WHERE day = ${day}`);
    await db.system.execute({ text: `DROP TABLE cloud_pod_usage_samples_${day.replaceAll("-", "")}`, values: [] });
  }

  test("a batch of 40 days ago is recognised after its partition is gone, and a new one is late", async () => {
    // Only sealing closes a day that is open, however old it is.
    await context.days.make([usageDay(longAgoMs - 1)]);
    expect(await store(old(1))).toMatchObject({ samplesStored: 3, samplesLate: 0 });
    await seal();
    expect(await store(old(1))).toMatchObject({
      verdicts: ["duplicate"],
      samplesStored: 0,
      samplesLate: 0,
      acknowledgements: [{ contiguousSeq: 1n }],
    });
    expect(await store(old(2))).toMatchObject({ verdicts: ["new"], samplesStored: 0, samplesLate: 3 });
    expect(await count("cloud_pod_usage_late_samples")).toBe(3);
    const marks = await db.system.query(sql`SELECT FROM usage_dirty_hours WHERE node_id = ${node.nodeId}`);
    expect(marks).toHaveLength(2);
    // The watermark alone knows: without it the same replay counts again.
    await db.system.execute(sql`UPDATE node_spools SET contiguous_seq = 0 WHERE node_id = ${node.nodeId}`);
    await db.system.execute(
      sql`DELETE FROM node_coverage USING node_spools s WHERE s.spool_no = node_coverage.spool_no AND node_id = ${node.nodeId}`,
    );
    expect(await store(old(1))).toMatchObject({ samplesLate: 3 });
  });

  test("is not sealed while somebody writes to it, and writers do not wait for each other", async () => {
    const day = usageDay(endMs - 1);
    await context.days.make([day]);
    const inside = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const writer = pool.transaction(60_000, async (tx) => {
      await tx.query(sql`SELECT pg_advisory_xact_lock_shared(hashtext('usage_days'), ${day})`);
      inside.resolve();
      await release.promise;
    });
    await inside.promise;
    const [free] = await db.system.query<{ locked: boolean }>(
      sql`SELECT pg_try_advisory_xact_lock(hashtext('usage_days'), ${day}) AS locked`,
    );
    expect(free?.locked).toBe(false);
    await store(batch(1));
    release.resolve();
    await writer;
    const [after] = await db.system.query<{ locked: boolean }>(
      sql`SELECT pg_try_advisory_xact_lock(hashtext('usage_days'), ${day}) AS locked`,
    );
    expect(after?.locked).toBe(true);
  });
});

describe("poison", () => {
  const letters = () =>
    db.system.query<{ reason: string; payload: Buffer }>(
      sql`SELECT reason, payload FROM telemetry_dead_letters WHERE node_id = ${node.nodeId} ORDER BY reason`,
    );

  test("bytes that are no batch are kept once; their number is settled when it can be read", async () => {
    const broken = Buffer.concat([batch(1, { samples: [] }), Buffer.from([82, 200, 1, 7])]);
    const nonsense = Buffer.from([255, 255, 255]);
    const outcome = await store(broken, nonsense, batch(2));
    expect(outcome).toMatchObject({
      verdicts: ["quarantined", "new"],
      samplesStored: 3,
      acknowledgements: [{ contiguousSeq: 2n }],
    });
    await store(broken, nonsense);
    expect(await letters()).toMatchObject([{ reason: "MALFORMED_PROTOBUF" }, { reason: "MALFORMED_PROTOBUF" }]);
  });

  test("a batch that contradicts an earlier one is kept and acknowledged", async () => {
    await store(batch(1), batch(2));
    const contradiction = payloadOf(batchOf(node, spoolId, { from: 2, to: 4 }, endMs));
    expect(await store(contradiction)).toMatchObject({
      verdicts: ["RANGE_OVERLAPS"],
      samplesStored: 0,
      acknowledgements: [{ contiguousSeq: 4n }],
    });
    expect(await letters()).toMatchObject([{ reason: "RANGE_OVERLAPS" }]);
  });

  test("a node that we do not know", async () => {
    const outcome = await storeMessages(context, [message(batch(1), newId()), message(batch(1), "no-uuid")]);
    expect(outcome).toMatchObject({ deadLetters: ["NODE_UNKNOWN", "NODE_UNKNOWN"], acknowledgements: [] });
  });

  test("a message that the database refuses is kept aside, and its group is stored", async () => {
    const twice = batch(2, { samples: [sampleOf(pod(), endMs), sampleOf(pod(), endMs)] });
    const outcomes: unknown[] = [];
    await storePatiently([message(batch(1)), message(twice), message(batch(3))], {
      store: (messages) => storeMessages(context, messages),
      stored: (outcome) => outcomes.push(outcome.verdicts),
      failed: (error) => expect.fail(String(error)),
      dropped: (_, error) => expect.fail(String(error)),
      signal: new AbortController().signal,
    });
    expect(outcomes).toEqual([["new"], ["quarantined"], ["new"]]);
    expect(await letters()).toMatchObject([{ reason: "REFUSED_BY_DATABASE", payload: Buffer.from(twice) }]);
    expect(await store(batch(4))).toMatchObject({ acknowledgements: [{ contiguousSeq: 4n }] });
    expect(await count("cloud_pod_usage_samples")).toBe(9);
  });
});
