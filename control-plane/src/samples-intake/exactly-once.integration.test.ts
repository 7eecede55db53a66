import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { batchOf, payloadOf, sampleOf, seedFleet, type FleetNode } from "../../../test/support/telemetry-fleet.ts";
import { sqlState } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { hostingCache } from "./hosting.ts";
import { readSamplesMessage } from "./read-message.ts";
import { openStorePool, type StorePool, type StoreTransaction } from "./store-pool.ts";
import { storeMessages, type IncomingMessage } from "./store-messages.ts";
import { usageDay, usageDays } from "./usage-days.ts";

const workers = 6;
const spoolCount = 12;
const numbersPerSpool = 120;
const crashShare = 0.1;
const endMs = Math.floor(Date.now() / 60_000) * 60_000;

let db: TestDatabase;
let pool: StorePool;
let fleet: FleetNode[];

beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(async () => {
  pool = openStorePool(db.systemUrl, workers + 2);
  fleet = await seedFleet(db.system, { nodes: 4, podsPerNode: 1 });
  await usageDays(pool).make([usageDay(endMs - 86_400_000), usageDay(endMs - 1)]);
  // Keys of the tables would hide what the watermark lets through.
  await db.system.execute(
    sql`ALTER TABLE cloud_pod_usage_samples DROP CONSTRAINT IF EXISTS cloud_pod_usage_samples_pkey`,
  );
  await db.system.execute(sql`ALTER TABLE node_coverage DROP CONSTRAINT IF EXISTS node_coverage_pkey`);
});
afterEach(() => pool.close());

class Crash extends Error {}

/** Ends transactions at random before they commit, and callers at random before they learn of it. */
function crashing(inner: StorePool): StorePool {
  return {
    ...inner,
    async transaction(deadlineMs, work) {
      const result = await inner.transaction(deadlineMs, async (tx) => {
        const done = await work(tx);
        if (Math.random() < crashShare) throw new Crash("before commit");
        return done;
      });
      if (Math.random() < crashShare) throw new Crash("after commit");
      return result;
    },
  };
}

/** The same transactions with one statement changed. */
function altered(inner: StorePool, change: (text: string) => string): StorePool {
  return {
    ...inner,
    transaction: (deadlineMs, work) =>
      inner.transaction(deadlineMs, (tx) =>
        work({ ...tx, query: (statement) => tx.query({ text: change(statement.text), values: statement.values }) }),
      ),
  };
}

/** Histories of all spools, cut at random into batches of one to four numbers; a sample for each number. */
function histories(): IncomingMessage[] {
  return Array.from({ length: spoolCount }, (_, index) => {
    const node = fleet[index % fleet.length] ?? expect.fail("no node");
    const pod = node.pods[0] ?? expect.fail("no pod");
    const spoolId = newId();
    const messages: IncomingMessage[] = [];
    for (let from = 1; from <= numbersPerSpool;) {
      const to = Math.min(numbersPerSpool, from + Math.floor(Math.random() * 4));
      const samples = Array.from({ length: to - from + 1 }, (_unused, offset) =>
        sampleOf(pod, endMs - (numbersPerSpool - from - offset) * 60_000),
      );
      const payload = payloadOf(batchOf(node, spoolId, { from, to }, endMs, { samples, lowestUnackedSeq: 1n }));
      messages.push({ nodeId: node.nodeId, payload, receivedAtMs: Date.now() });
      from = to + 1;
    }
    return messages;
  }).flat();
}

/**
 * Delivers everything three times to workers that crash; whoever crashed gets it again. `strayMax`: so far, in messages, it
 * comes from its place; by default in any order. A wrong variant may refuse a message for ever, so there is an end to it.
 */
async function deliverAll(
  messages: readonly IncomingMessage[],
  store: (group: IncomingMessage[]) => Promise<unknown>,
  strayMax = Infinity,
): Promise<void> {
  const queue = [messages, messages, messages]
    .flatMap((copies) =>
      copies.map((message, index) => ({
        message,
        at: strayMax === Infinity ? Math.random() : index + Math.random() * strayMax,
      })),
    )
    .toSorted((a, b) => a.at - b.at)
    .map(({ message }) => message);
  let attemptsLeft = 10 * queue.length;
  const work = async () => {
    while (queue.length > 0 && attemptsLeft-- > 0) {
      const group = queue.splice(0, 1 + Math.floor(Math.random() * 8));
      await store(group).catch((error: unknown) => {
        // A database error is answered as a host would answer it: by offering again.
        if (!(error instanceof Crash) && sqlState(error) === undefined) throw error;
        queue.splice(Math.floor(Math.random() * queue.length), 0, ...group);
      });
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
}

async function stored(): Promise<{ rows: number; distinct: number }> {
  const [row] = await db.system.query<{ rows: number; distinct: number }>(sql`
    SELECT count(*)::integer AS rows, count(DISTINCT (spool_no, sample_time))::integer AS distinct
    FROM cloud_pod_usage_samples JOIN node_spools USING (spool_no) WHERE node_id = ANY(${fleet.map((node) => node.nodeId)}::uuid[])`);
  return row ?? expect.fail("no count");
}

const expected = spoolCount * numbersPerSpool;
/** Copies that come close together meet in two workers again and again; in any order that happened in every fourth round. */
const nearby = 8;
/** Five rounds on a busy machine. */
const wrongVariantMs = 300_000;

describe("six workers, twelve spools, everything three times in any order, crashes around the commit", () => {
  test("each sample is stored once and the watermarks are complete", async () => {
    const context = {
      pool: crashing(pool),
      hosting: hostingCache(pool, Date.now),
      days: usageDays(pool),
      clock: Date.now,
    };
    let deadlocks = 0;
    await deliverAll(histories(), (group) =>
      storeMessages(context, group).catch((error: unknown) => {
        if (sqlState(error) === "40P01") deadlocks++;
        throw error;
      }),
    );
    expect(await stored()).toEqual({ rows: expected, distinct: expected });
    expect(deadlocks).toBe(0);
    const spools = await db.system.query<{ contiguous_seq: bigint }>(
      sql`SELECT contiguous_seq FROM node_spools WHERE node_id = ANY(${fleet.map((node) => node.nodeId)}::uuid[])`,
    );
    expect(spools.map((spool) => spool.contiguous_seq)).toEqual(Array(spoolCount).fill(BigInt(numbersPerSpool)));
    expect(await db.system.query(sql`SELECT FROM node_spool_pending`)).toEqual([]);
    expect(await db.system.query(sql`SELECT FROM node_spool_gaps`)).toEqual([]);
  });

  test(
    "claiming numbers by the key of the pending table and computing the watermark in the update stores samples twice",
    async () => {
      const wrong = await untilWrong(() =>
        deliverAll(
          histories(),
          async (group) => {
            for (const message of group) await crashing(pool).transaction(60_000, (tx) => storeByClaim(tx, message));
          },
          nearby,
        ),
      );
      expect(wrong.rows).toBeGreaterThan(wrong.distinct);
    },
    wrongVariantMs,
  );

  test(
    "the same without the lock stores samples twice",
    async () => {
      await db.system.execute(sql`ALTER TABLE node_spool_pending DROP CONSTRAINT node_spool_pending_pkey`);
      const unlocked = altered(crashing(pool), (text) => text.replace("FOR UPDATE OF s", ""));
      const context = { pool: unlocked, hosting: hostingCache(pool, Date.now), days: usageDays(pool), clock: Date.now };
      const wrong = await untilWrong(() => deliverAll(histories(), (group) => storeMessages(context, group), nearby));
      expect(wrong.rows).toBeGreaterThan(wrong.distinct);
    },
    wrongVariantMs,
  );
});

/** Chance decides how soon a wrong variant is caught; it is caught within a few rounds or the harness is blind. */
async function untilWrong(round: () => Promise<void>): Promise<{ rows: number; distinct: number }> {
  let result = { rows: 0, distinct: 0 };
  for (let rounds = 0; rounds < 5 && result.rows === result.distinct; rounds++) {
    await round();
    result = await stored();
  }
  return result;
}

/** The natural implementation that does not work: no lock, the unique key decides, the watermark is a sub-select. */
async function storeByClaim(tx: StoreTransaction, { nodeId, payload }: IncomingMessage): Promise<void> {
  const { batch } = readSamplesMessage(payload);
  if (batch === undefined) return expect.fail("unreadable");
  await tx.query(
    sql`INSERT INTO node_spools (node_id, spool_id) VALUES (${nodeId}, ${batch.spoolId}) ON CONFLICT DO NOTHING`,
  );
  const [claimed] = await tx.query<{ spool_no: number }>(sql`
      INSERT INTO node_spool_pending (spool_no, seq_from, seq_to)
      SELECT spool_no, ${batch.seqFrom}, ${batch.seqTo} FROM node_spools
      WHERE node_id = ${nodeId} AND spool_id = ${batch.spoolId} AND contiguous_seq < ${batch.seqFrom}
      ON CONFLICT DO NOTHING RETURNING spool_no`);
  if (claimed === undefined) return;
  for (const sample of batch.samples) {
    await tx.query(sql`
        INSERT INTO cloud_pod_usage_samples SELECT (jsonb_populate_record(NULL::cloud_pod_usage_samples, ${JSON.stringify(
          {
            pod_id: sample.podId,
            sample_time: new Date(Number(sample.endMs)).toISOString(),
            start_time: new Date(Number(sample.startMs)).toISOString(),
            spool_no: claimed.spool_no,
            seq: Number(batch.seqFrom),
            ...Object.fromEntries(zeroColumns.map((column) => [column, 0])),
            incarnation: "",
          },
        )}::jsonb)).*`);
  }
  await tx.query(sql`
      UPDATE node_spools SET contiguous_seq = coalesce((
        WITH RECURSIVE run AS (
          SELECT seq_to FROM node_spool_pending WHERE spool_no = ${claimed.spool_no} AND seq_from = contiguous_seq + 1
          UNION ALL
          SELECT p.seq_to FROM run JOIN node_spool_pending p ON p.spool_no = ${claimed.spool_no} AND p.seq_from = run.seq_to + 1
        ) SELECT max(seq_to) FROM run), contiguous_seq)
      WHERE spool_no = ${claimed.spool_no}`);
  await tx.query(sql`
      DELETE FROM node_spool_pending p USING node_spools s
      WHERE p.spool_no = s.spool_no AND s.spool_no = ${claimed.spool_no} AND p.seq_to <= s.contiguous_seq`);
}

const zeroColumns = [
  "running_ms", "cpu_usage_us", "cpu_max_basis_points", "memory_byte_ms", "memory_max_bytes", "disk_byte_ms", "disk_max_bytes",
  "guest_in_bytes", "guest_out_bytes", "io_read_bytes", "io_write_bytes", "sample_count", "cores", "memory_mb", "disk_gb",
]; // prettier-ignore
