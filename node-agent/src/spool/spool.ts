import { randomUUID } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { type SampleAcks, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { messageOf } from "../agent-error.ts";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import { ackedSeqOf, acknowledgeBatches, dropAcked, pruneAcked, unacknowledgeAbove } from "./acked-batches.ts";
import {
  type StoredBatch,
  inTransaction,
  insertBatch,
  markOffered,
  nextSeqOf,
  readFact,
  unackedBatches,
  writeFact,
} from "./batch-rows.ts";
import { forgetOldBoots, rememberOffset, rememberedOffset, timeBatches } from "./batch-times.ts";
import { coalesceOldest } from "./coalesce.ts";
import { MAX_OFFERED, createOfferSchedule } from "./offer-schedule.ts";
import { renumberAsNewSpool } from "./renumber.ts";
import type { SampledTick } from "./sampled-tick.ts";
import { type SpoolDamage, isDamage, openSpoolFile, replaceSpoolFile, setAsideFiles } from "./spool-file.ts";
import { type SpoolStatus, bytesInUse, readStatus } from "./spool-status.ts";
import { splitTick } from "./split-tick.ts";

/** The durable queue between the sampler and the control plane. Every method is synchronous. */
export interface Spool {
  /** Identity of the numbering; changes only in `startSession`, or when nothing of a damaged file can be read. */
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
 * `<path>.corrupt-<n>` and replaced by what can be read of it.
 */
export function openSpool(options: SpoolOptions): Spool {
  const spool = new SqliteSpool(options);
  /** Runs an operation again on what is left of the file when it turns out to be unreadable. */
  function guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!isDamage(error)) throw error;
      spool.replaceDamaged(messageOf(error));
      return work();
    }
  }
  return {
    spoolId: () => guarded(() => spool.spoolId()),
    nextSeq: () => guarded(() => spool.nextSeq()),
    ackedSeq: () => guarded(() => spool.ackedSeq()),
    append: (tick) => guarded(() => spool.append(tick)),
    samplerState: () => guarded(() => spool.samplerState()),
    startSession: (contiguousSeq) => guarded(() => spool.startSession(contiguousSeq)),
    takeOffers: () => guarded(() => spool.takeOffers()),
    retryNow: () => spool.retryNow(),
    acknowledge: (acks) => guarded(() => spool.acknowledge(acks)),
    status: () => guarded(() => spool.status()),
    close: () => spool.close(),
  };
}

class SqliteSpool implements Spool {
  readonly #options: SpoolOptions;
  readonly #schedule = createOfferSchedule();
  #database: DatabaseSync;
  /** Whether a session has told that this file is not an old copy. */
  #isConfirmed = false;
  #isOverLimit = false;

  constructor(options: SpoolOptions) {
    this.#options = options;
    this.#database = this.#open();
  }

  #open(): DatabaseSync {
    const { clock, path } = this.#options;
    const { database, damage } = openSpoolFile(path, clock.bootId);
    if (damage !== undefined) this.#tellDamage(damage, "it cannot be opened");
    forgetOldBoots(database, clock.bootId);
    const offsetMs = rememberedOffset(database, clock.bootId);
    if (offsetMs !== undefined) clock.resume(offsetMs);
    // What the present session has confirmed stays so in a file that takes the place of a damaged one.
    if (!this.#isConfirmed && readFact(database, "unconfirmed_from") === undefined) {
      writeFact(database, "unconfirmed_from", nextSeqOf(database));
    }
    return database;
  }

  /** Sets the file aside and goes on with what can be read of it. */
  replaceDamaged(reason: string): void {
    const { clock, path } = this.#options;
    this.#database.close();
    this.#tellDamage(replaceSpoolFile(path, clock.bootId), reason);
    this.#schedule.reset();
    this.#database = this.#open();
  }

  #tellDamage({ setAside, lostBatches }: SpoolDamage, reason: string): void {
    const lost = lostBatches === undefined ? "all" : String(lostBatches);
    this.#options.log.warn({ setAside, lost, reason }, "the spool is damaged: what can be read was taken over");
  }

  spoolId(): string {
    return String(readFact(this.#database, "spool_id"));
  }

  nextSeq(): bigint {
    return nextSeqOf(this.#database);
  }

  ackedSeq(): bigint {
    return ackedSeqOf(this.#database);
  }

  samplerState(): Uint8Array | undefined {
    const state = readFact(this.#database, "sampler_state");
    return state instanceof Uint8Array ? state : undefined;
  }

  retryNow(): void {
    this.#schedule.reset();
  }

  status(): SpoolStatus {
    const damagedFiles = setAsideFiles(this.#options.path);
    return { ...readStatus(this.#database), isOverLimit: this.#isOverLimit, damagedFiles };
  }

  close(): void {
    this.#database.close();
  }

  append(tick: SampledTick): void {
    const { clock, log } = this.#options;
    inTransaction(this.#database, () => {
      for (const { batch, payload } of this.#batchesOf(tick)) insertBatch(this.#database, batch, false, payload);
      writeFact(this.#database, "sampler_state", tick.samplerState);
      rememberOffset(this.#database, clock);
    });
    try {
      pruneAcked(this.#database, clock.epochMs());
      this.#relieve();
    } catch (error) {
      // The tick is stored: whoever sees this call fail would store its usage a second time.
      if (isDamage(error)) throw error;
      log.warn({ reason: messageOf(error) }, "the spool could not be tidied up");
    }
  }

  /** All parts of a tick but the last speak of their own samples only: they cover no time. */
  #batchesOf(tick: SampledTick): { readonly batch: SampleBatch; readonly payload: Uint8Array }[] {
    const parts = splitTick(tick.samples);
    const firstSeq = this.nextSeq();
    return parts.map(({ samples, encoded }, index) => {
      const isLast = index === parts.length - 1;
      const seq = firstSeq + BigInt(index);
      const header = SampleBatch.fromPartial({
        spoolId: this.spoolId(),
        seqFrom: seq,
        seqTo: seq,
        bootId: this.#options.clock.bootId,
        coversFromMs: BigInt(tick.coversFromMonotonicMs),
        coversToMs: BigInt(isLast ? tick.coversToMonotonicMs : tick.coversFromMonotonicMs),
        unreadableVmids: isLast ? [...tick.unreadableVmids] : [],
      });
      const payload = joined(SampleBatch.encode(header).finish(), encoded);
      return { batch: { ...header, samples }, payload };
    });
  }

  /** Gives space back: first what is stored elsewhere too, then resolution, never usage. */
  #relieve(): void {
    const { clock, limitBytes } = this.#options;
    this.#isOverLimit = false;
    if (bytesInUse(this.#database) <= limitBytes) return;
    const enough = limitBytes * RELIEVED_PART;
    while (bytesInUse(this.#database) > enough && dropAcked(this.#database, DROP_STEP) > 0);
    if (bytesInUse(this.#database) <= enough) return;
    inTransaction(this.#database, () => timeBatches(this.#database, clock, this.nextSeq()));
    const isMerging = coalesceOldest(this.#database);
    this.#isOverLimit = !isMerging && bytesInUse(this.#database) > limitBytes;
  }

  takeOffers(): OfferedBatch[] {
    if (!this.#isConfirmed) return [];
    const nowMs = this.#options.clock.monotonicMs();
    const offered = unackedBatches(this.#database, true, MAX_OFFERED);
    const fresh = inTransaction(this.#database, () => this.#offerFresh(MAX_OFFERED - offered.length));
    const again = offered.filter(({ seqFrom }) => this.#schedule.isDue(seqFrom, nowMs));
    const lowestUnackedSeq = this.#lowestHeldSeq();
    const header = SampleBatch.encode(SampleBatch.fromPartial({ lowestUnackedSeq })).finish();
    return [...again, ...fresh].map(({ seqFrom, seqTo, payload }) => {
      this.#schedule.offered(seqFrom, nowMs);
      return { seqFrom, seqTo, payload: joined(header, payload) };
    });
  }

  #offerFresh(count: number): StoredBatch[] {
    const candidates = count > 0 ? unackedBatches(this.#database, false, count) : [];
    const last = candidates.at(-1);
    if (last === undefined) return [];
    timeBatches(this.#database, this.#options.clock, last.seqFrom);
    return markOffered(this.#database, last.seqFrom);
  }

  /**
   * The lowest number that may still come. Acknowledged batches count as long as they are kept: a
   * control plane restored from a backup must not take them for lost before it is offered them again.
   */
  #lowestHeldSeq(): bigint {
    const row = this.#database.prepare("SELECT min(seq_from) AS seq FROM batches").get();
    return typeof row?.["seq"] === "bigint" ? row["seq"] : this.nextSeq();
  }

  startSession(contiguousSeq: bigint): void {
    const { log } = this.#options;
    const unconfirmed = readFact(this.#database, "unconfirmed_from");
    // What this process numbered before its first session was never offered: only a later self of the
    // file can have delivered those numbers.
    const fromSeq = typeof unconfirmed === "bigint" ? unconfirmed : this.nextSeq();
    if (contiguousSeq >= fromSeq) {
      inTransaction(this.#database, () => renumberAsNewSpool(this.#database, randomUUID(), fromSeq));
      this.#schedule.reset();
      log.warn({ spoolId: this.spoolId() }, "the spool file is an old copy: a new spool id was begun");
    } else if (this.ackedSeq() > 0n && contiguousSeq < this.ackedSeq()) {
      unacknowledgeAbove(this.#database, contiguousSeq);
      log.warn({ contiguousSeq }, "the control plane went back: stored batches are offered again");
    }
    this.#database.prepare("DELETE FROM facts WHERE name = 'unconfirmed_from'").run();
    this.#isConfirmed = true;
  }

  acknowledge(acks: SampleAcks): void {
    if (acks.spoolId !== this.spoolId()) return;
    const nowMs = this.#options.clock.epochMs();
    for (const seqFrom of acknowledgeBatches(this.#database, acks, nowMs)) {
      this.#schedule.forget(seqFrom);
    }
  }
}

/**
 * Encoded messages that are joined decode as one
 * (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
 */
function joined(header: Uint8Array, rest: Uint8Array): Uint8Array {
  return Buffer.concat([header, rest]);
}
