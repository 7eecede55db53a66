import { randomUUID } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { type SampleAcks, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { messageOf } from "../agent-error.ts";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import {
  ackedSeqOf,
  acknowledgeBatches,
  dropAcked,
  pruneAcked,
  unacknowledgeAbove,
} from "./acked-batches.ts";
import {
  type StoredBatch,
  inTransaction,
  insertBatch,
  integerOf,
  nextSeqOf,
  readFact,
  storedBatchOf,
  unackedBatches,
  writeFact,
} from "./batch-rows.ts";
import { forgetOldBoots, rememberOffset, rememberedOffset, timeBatches } from "./batch-times.ts";
import { coalesceOldest } from "./coalesce.ts";
import { MAX_OFFERED, createOfferSchedule } from "./offer-schedule.ts";
import { renumberAsNewSpool } from "./renumber.ts";
import type { SampledTick } from "./sampled-tick.ts";
import { isDamage, openSpoolFile, setSpoolFileAside } from "./spool-file.ts";
import { splitTick } from "./split-tick.ts";

/** The durable queue between the sampler and the control plane. Every method is synchronous. */
export interface Spool {
  /** Identity of the numbering; changes only in `startSession`, or when the file turns unreadable. */
  spoolId(): string;
  /** The next sequence number that it will give (Hello.spool_next_seq). */
  nextSeq(): bigint;
  /** Highest number up to which everything is acknowledged (Hello.spool_acked_seq). */
  ackedSeq(): bigint;
  /** Stores a tick; durable when it returns. Throws when the disk is full: then nothing is stored. */
  append(tick: SampledTick): void;
  /** What the sampler stored with its last tick. */
  samplerState(): Uint8Array | undefined;
  /**
   * Tells the control plane's watermark of this spool (Welcome.spool_contiguous_seq; -1 when it does
   * not know the spool). Nothing is offered before the first call. Offers again what a restored
   * database lost, and begins a new spool id when this file is older than what was delivered.
   */
  startSession(contiguousSeq: bigint): void;
  /** Batches to publish now; they count as offered from then on, even if the agent dies first. */
  takeOffers(): OfferedBatch[];
  /** Makes everything that is offered and unacknowledged due at once, after a reconnect. */
  retryNow(): void;
  /** Takes acknowledgements; those of another spool are ignored. */
  acknowledge(acks: SampleAcks): void;
  status(): SpoolStatus;
  close(): void;
}

/** One message for the samples topic. */
export interface OfferedBatch {
  readonly seqFrom: bigint;
  readonly seqTo: bigint;
  /** An encoded SampleBatch. */
  readonly payload: Uint8Array;
}

/** What the heartbeat tells about the spool. */
export interface SpoolStatus {
  readonly spoolId: string;
  /** Batches that are not acknowledged. */
  readonly depth: number;
  /** End of the oldest of them, ms since 1970; 0 when there is none. */
  readonly oldestEndMs: number;
  /** Bytes in use in the file. */
  readonly bytes: number;
  /** Over the limit although nothing more can be merged: the limit gives way, nothing is dropped. */
  readonly isOverLimit: boolean;
}

/** Where and how large. */
export interface SpoolOptions {
  /** The SQLite file; its directory exists. */
  readonly path: string;
  /** Gives absolute times to batches; `openSpool` resumes the offset that the file remembers. */
  readonly clock: DisciplinedClock;
  /** Bytes from which on acknowledged batches are dropped early and old minutes are merged. */
  readonly limitBytes: number;
  readonly log: SpoolLog;
}

/** What the spool logs to; pino's Logger fits. */
export interface SpoolLog {
  warn(details: object, message: string): void;
}

/** Merging goes on until this part of the limit is in use, so that not every tick has to merge. */
const RELIEVED_PART = 0.9;
/** Acknowledged batches dropped in one step when space is short. */
const DROP_STEP = 100;

/**
 * Opens the spool, making it if need be. A file that cannot be read is renamed to
 * `<path>.corrupt-<n>` and a new one is begun.
 */
export function openSpool(options: SpoolOptions): Spool {
  const { clock, limitBytes, log, path } = options;
  const schedule = createOfferSchedule();
  let isConfirmed = false;
  let isOverLimit = false;
  let database = open();

  function open(): DatabaseSync {
    const file = openSpoolFile(path);
    if (file.setAside !== undefined) log.warn({ setAside: file.setAside }, "the spool was unreadable");
    const opened = file.database;
    forgetOldBoots(opened, clock.bootId);
    const offsetMs = rememberedOffset(opened, clock.bootId);
    if (offsetMs !== undefined) clock.resume(offsetMs);
    if (readFact(opened, "unconfirmed_from") === undefined) {
      writeFact(opened, "unconfirmed_from", nextSeqOf(opened));
    }
    return opened;
  }

  /** Runs an operation again on a fresh file when the present one turns out to be unreadable. */
  function guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!isDamage(error)) throw error;
      database.close();
      const setAside = setSpoolFileAside(path);
      log.warn({ setAside, reason: messageOf(error) }, "the spool became unreadable");
      schedule.reset();
      database = open();
      return work();
    }
  }

  function append(tick: SampledTick): void {
    inTransaction(database, () => {
      for (const batch of batchesOf(tick)) insertBatch(database, batch, false);
      writeFact(database, "sampler_state", tick.samplerState);
      rememberOffset(database, clock);
    });
    try {
      pruneAcked(database, clock.epochMs());
      relieve();
    } catch (error) {
      // The tick is stored: whoever sees this call fail would store its usage a second time.
      if (isDamage(error)) throw error;
      log.warn({ reason: messageOf(error) }, "the spool could not be tidied up");
    }
  }

  /** All parts of a tick but the last speak of their own samples only: they cover no time. */
  function batchesOf(tick: SampledTick): SampleBatch[] {
    const parts = splitTick(tick.samples);
    const firstSeq = nextSeqOf(database);
    return parts.map((samples, index) => {
      const isLast = index === parts.length - 1;
      const seq = firstSeq + BigInt(index);
      return SampleBatch.fromPartial({
        spoolId: spoolId(),
        seqFrom: seq,
        seqTo: seq,
        bootId: clock.bootId,
        coversFromMs: BigInt(tick.coversFromMonotonicMs),
        coversToMs: BigInt(isLast ? tick.coversToMonotonicMs : tick.coversFromMonotonicMs),
        unreadableVmids: isLast ? [...tick.unreadableVmids] : [],
        samples,
      });
    });
  }

  /** Gives space back: first what is stored elsewhere too, then resolution, never usage. */
  function relieve(): void {
    isOverLimit = false;
    if (bytesInUse(database) <= limitBytes) return;
    const enough = limitBytes * RELIEVED_PART;
    while (bytesInUse(database) > enough && dropAcked(database, DROP_STEP) > 0);
    if (bytesInUse(database) <= enough) return;
    inTransaction(database, () => timeBatches(database, clock, nextSeqOf(database)));
    const isMerging = coalesceOldest(database);
    isOverLimit = !isMerging && bytesInUse(database) > limitBytes;
  }

  function takeOffers(): OfferedBatch[] {
    if (!isConfirmed) return [];
    const nowMs = clock.monotonicMs();
    const offered = unackedBatches(database, true, MAX_OFFERED);
    const fresh = inTransaction(database, () => offerFresh(MAX_OFFERED - offered.length));
    const due = [...offered.filter(({ seqFrom }) => schedule.isDue(seqFrom, nowMs)), ...fresh];
    const header = SampleBatch.encode(
      SampleBatch.fromPartial({ lowestUnackedSeq: lowestHeldSeq() }),
    ).finish();
    return due.map(({ seqFrom, seqTo, payload }) => {
      schedule.offered(seqFrom, nowMs);
      // Encoded messages that are joined decode as one whose later fields win
      // (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
      return { seqFrom, seqTo, payload: Buffer.concat([payload, header]) };
    });
  }

  function offerFresh(count: number): StoredBatch[] {
    const candidates = count > 0 ? unackedBatches(database, false, count) : [];
    const last = candidates.at(-1);
    if (last === undefined) return [];
    timeBatches(database, clock, last.seqFrom);
    return database
      .prepare(
        `UPDATE batches SET is_offered = 1
          WHERE is_timed = 1 AND is_offered = 0 AND acked_at_ms IS NULL AND seq_from <= ?
          RETURNING seq_from, seq_to, boot_id, payload`,
      )
      .all(last.seqFrom)
      .map(storedBatchOf)
      .toSorted((a, b) => Number(a.seqFrom - b.seqFrom));
  }

  /**
   * The lowest number that may still come. Acknowledged batches count as long as they are kept: a
   * control plane restored from a backup must not take them for lost before it is offered them again.
   */
  function lowestHeldSeq(): bigint {
    const seq = database.prepare("SELECT min(seq_from) AS seq FROM batches").get()?.["seq"];
    return typeof seq === "bigint" ? seq : nextSeqOf(database);
  }

  function startSession(contiguousSeq: bigint): void {
    if (contiguousSeq >= nextSeqOf(database)) {
      const from = readFact(database, "unconfirmed_from");
      inTransaction(database, () => {
        renumberAsNewSpool(database, randomUUID(), typeof from === "bigint" ? from : 0n);
      });
      schedule.reset();
      log.warn({ spoolId: spoolId() }, "the spool file is an old copy: a new spool id was begun");
    } else if (contiguousSeq < ackedSeqOf(database)) {
      unacknowledgeAbove(database, contiguousSeq);
      log.warn({ contiguousSeq }, "the control plane went back: stored batches are offered again");
    }
    database.prepare("DELETE FROM facts WHERE name = 'unconfirmed_from'").run();
    isConfirmed = true;
  }

  function acknowledge(acks: SampleAcks): void {
    if (acks.spoolId !== spoolId()) return;
    const nowMs = clock.epochMs();
    for (const seqFrom of acknowledgeBatches(database, acks, nowMs)) schedule.forget(seqFrom);
  }

  function spoolId(): string {
    return String(readFact(database, "spool_id"));
  }

  return {
    spoolId: () => guarded(spoolId),
    nextSeq: () => guarded(() => nextSeqOf(database)),
    ackedSeq: () => guarded(() => ackedSeqOf(database)),
    append: (tick) => guarded(() => append(tick)),
    samplerState: () =>
      guarded(() => {
        const state = readFact(database, "sampler_state");
        return state instanceof Uint8Array ? state : undefined;
      }),
    startSession: (contiguousSeq) => guarded(() => startSession(contiguousSeq)),
    takeOffers: () => guarded(takeOffers),
    retryNow: () => schedule.reset(),
    acknowledge: (acks) => guarded(() => acknowledge(acks)),
    status: () => guarded(() => statusOf(database, spoolId(), isOverLimit)),
    close: () => database.close(),
  };
}

function statusOf(database: DatabaseSync, spoolId: string, isOverLimit: boolean): SpoolStatus {
  const unacked = "FROM batches WHERE acked_at_ms IS NULL";
  const count = database.prepare(`SELECT count(*) AS depth ${unacked}`).get();
  const oldest = database
    .prepare(`SELECT end_ms, is_timed, boot_id ${unacked} ORDER BY seq_from LIMIT 1`)
    .get();
  return {
    spoolId,
    depth: Number(count?.["depth"] ?? 0),
    oldestEndMs: oldest === undefined ? 0 : epochEndOf(database, oldest),
    bytes: bytesInUse(database),
    isOverLimit,
  };
}

/** End of a batch since 1970; of one without absolute times by the offset last known in its boot. */
function epochEndOf(database: DatabaseSync, row: Record<string, unknown>): number {
  const endMs = Number(integerOf(row["end_ms"]));
  if (integerOf(row["is_timed"]) === 1n) return endMs;
  const boot = database
    .prepare("SELECT offset_ms FROM boots WHERE boot_id = ?")
    .get(String(row["boot_id"]));
  return endMs + Number(integerOf(boot?.["offset_ms"]));
}

function bytesInUse(database: DatabaseSync): number {
  const pragma = (name: string): number =>
    Number(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0]);
  return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size");
}
