import { isUuid } from "@cloudpods/shared/ids";
import type { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { admitBatches, type OfferedBatch, type Verdict } from "./admit-batches.ts";
import { hourLengthMs, hoursTouched, isWithinStay, judgeValues, type RejectionReason } from "./judge-sample.ts";
import type { Hosting, NodeHosting, StayQuestion } from "./hosting.ts";
import { readSamplesMessage, type BatchHeader, type SamplesMessage } from "./read-message.ts";
import { sampleColumns, SampleRows } from "./sample-rows.ts";
import { writeCoverageAndWatermarks, writeDeadLetters, writeRejectedSamples } from "./side-rows.ts";
import type { Coverage, DeadLetter, DirtyHour, RejectedSample } from "./side-rows.ts";
import type { SeqRange } from "./sequence-ranges.ts";
import { lockSpools, writeRanges, type LockedSpool, type SpoolChange, type SpoolKey } from "./spool-rows.ts";
import type { StorePool, StoreTransaction } from "./store-pool.ts";
import { lockOpenDays, mayOpenDay, usageDay, type UsageDays } from "./usage-days.ts";

/** A message with what happened to it so far. */
export interface IncomingMessage extends SamplesMessage {
  readonly receivedAtMs: number;
  /** Set when the database refused the message's content: it is kept as a dead letter. */
  readonly poison?: string;
}

/** What the host may be told once the transaction has committed. */
export interface SpoolAcknowledgement extends SpoolKey {
  readonly contiguousSeq: bigint;
  readonly ranges: readonly SeqRange[];
}

/** What a group of messages came to. */
export interface StoreOutcome {
  readonly acknowledgements: readonly SpoolAcknowledgement[];
  readonly samplesStored: number;
  readonly samplesLate: number;
  /** `unvouched`: of a spool that is not believed yet; neither stored nor acknowledged. */
  readonly verdicts: readonly (Verdict | "unvouched")[];
  readonly rejected: readonly RejectionReason[];
  readonly deadLetters: readonly string[];
}

/** What storing needs. */
export interface StoreContext {
  readonly pool: StorePool;
  readonly hosting: Hosting;
  readonly days: UsageDays;
  readonly clock: () => number;
}

const transactionDeadlineMs = 60_000;

interface JudgedSample {
  readonly sample: Sample;
  readonly firstDay: number;
  readonly lastDay: number;
}

/** A message of a known node, read and judged; nothing of the database's state of its spool is known yet. */
interface Judged {
  readonly message: IncomingMessage;
  readonly header: BatchHeader;
  /** Undefined when the content cannot be stored. */
  readonly batch: SampleBatch | undefined;
  readonly letter: { readonly reason: string; readonly detail: string } | undefined;
  readonly accepted: JudgedSample[];
  readonly rejected: { readonly sample: Sample; readonly reason: RejectionReason }[];
}

/**
 * Stores a group of messages in one transaction. When it returns, everything in the acknowledgements is
 * durable; when it throws, nothing was stored and the same group may be given again.
 */
export async function storeMessages(
  context: StoreContext,
  messages: readonly IncomingMessage[],
): Promise<StoreOutcome> {
  const nodes = await context.hosting.load(new Set(messages.map((m) => m.nodeId).filter(isUuid)));
  const letters: DeadLetter[] = [];
  const judged: Judged[] = [];
  const nowMs = context.clock();
  for (const message of messages) {
    const node = nodes.get(message.nodeId);
    const read = readSamplesMessage(message.payload);
    if (node === undefined || node.state === "unknown") {
      letters.push({
        message,
        nodeId: isUuid(message.nodeId) ? message.nodeId : undefined,
        reason: "NODE_UNKNOWN",
        detail: "",
      });
    } else if (read.batch !== undefined) {
      judged.push(judgeBatch(message, read.header, read.batch, node, nowMs));
    } else if (read.header !== undefined) {
      judged.push({ message, header: read.header, batch: undefined, letter: read, accepted: [], rejected: [] });
    } else {
      letters.push({ message, nodeId: message.nodeId, reason: read.reason, detail: read.detail });
    }
  }
  await admitFormerStays(context.hosting, judged);
  const days = new Set(
    judged.flatMap(({ accepted }) => [...new Set(accepted.flatMap((s) => [s.firstDay, s.lastDay]))]),
  );
  await context.days.make([...days].filter((day) => mayOpenDay(day, nowMs)));
  return await context.pool.transaction(transactionDeadlineMs, (tx) =>
    storeJudged(tx, judged, letters, [...days], nowMs),
  );
}

function judgeBatch(
  message: IncomingMessage,
  header: BatchHeader,
  batch: SampleBatch,
  node: NodeHosting,
  nowMs: number,
): Judged {
  const accepted: JudgedSample[] = [];
  const rejected: Judged["rejected"] = [];
  const letter = message.poison === undefined ? undefined : { reason: "REFUSED_BY_DATABASE", detail: message.poison };
  if (letter !== undefined) return { message, header, batch: undefined, letter, accepted, rejected };
  for (const sample of batch.samples) {
    const reason = node.state === "removed" ? "NODE_REMOVED" : judgeValues(sample, nowMs);
    if (reason !== undefined) rejected.push({ sample, reason });
    else if (isWithinStay(sample, node.stays.get(sample.podId))) accepted.push(withDays(sample));
    else rejected.push({ sample, reason: "POD_NOT_PLACED_HERE" });
  }
  return { message, header, batch, letter, accepted, rejected };
}

function withDays(sample: Sample): JudgedSample {
  return { sample, firstDay: usageDay(Number(sample.startMs)), lastDay: usageDay(Number(sample.endMs) - 1) };
}

/** What would be rejected for its place is looked up once more: the cache may be older than the placement, or the stay long past. */
async function admitFormerStays(hosting: Hosting, judged: readonly Judged[]): Promise<void> {
  const misplaced = judged.filter(({ rejected }) => rejected.some(({ reason }) => reason === "POD_NOT_PLACED_HERE"));
  if (misplaced.length === 0) return;
  const questions: StayQuestion[] = misplaced.flatMap(({ message, rejected }) =>
    rejected
      .filter(({ reason }) => reason === "POD_NOT_PLACED_HERE")
      .map(({ sample }) => ({ nodeId: message.nodeId, podId: sample.podId })),
  );
  const stays = await hosting.lookUp(questions);
  for (const { message, accepted, rejected } of misplaced) {
    for (const entry of rejected.splice(0)) {
      const isHere =
        entry.reason === "POD_NOT_PLACED_HERE" &&
        isWithinStay(entry.sample, stays.get(`${message.nodeId}/${entry.sample.podId}`));
      if (isHere) accepted.push(withDays(entry.sample));
      else rejected.push(entry);
    }
  }
}

const keyOf = (key: SpoolKey) => `${key.nodeId}/${key.spoolId}`;
const spoolOf = ({ message, header }: Judged) => keyOf({ nodeId: message.nodeId, spoolId: header.spoolId });

async function storeJudged(
  tx: StoreTransaction,
  judged: readonly Judged[],
  letters: DeadLetter[],
  days: readonly number[],
  nowMs: number,
): Promise<StoreOutcome> {
  const bySpool = Map.groupBy(judged, spoolOf);
  const keys = [...bySpool.values()].flatMap(([item]) =>
    item === undefined ? [] : [{ nodeId: item.message.nodeId, spoolId: item.header.spoolId }],
  );
  const offeredFor = (key: SpoolKey) => bySpool.get(keyOf(key)) ?? [];
  const lowestOf = (key: SpoolKey) =>
    offeredFor(key).reduce((lowest, { header }) => (header.seqFrom < lowest ? header.seqFrom : lowest), 2n ** 62n);
  const openDays = days.length === 0 ? new Set<number>() : await lockOpenDays(tx, days);
  const spools = keys.length === 0 ? [] : await lockSpools(tx, keys, lowestOf);

  const work = new GroupRows(
    openDays,
    judged.reduce((sum, { accepted }) => sum + accepted.length, 0),
  );
  const verdicts: (Verdict | "unvouched")[] = [];
  const changes: SpoolChange[] = [];
  for (const spool of spools) {
    const offered = offeredFor(spool);
    const admission = admitBatches(
      spool.state,
      offered.map((item) => offerOf(item, spool.refused)),
    );
    offered.forEach((item, index) => {
      const verdict = admission.verdicts[index];
      if (verdict === undefined) return;
      verdicts.push(verdict);
      if (verdict === "new") work.addBatch(spool, item, nowMs);
      else if (verdict !== "duplicate") letters.push(letterOf(item, verdict));
    });
    changes.push({ spoolNo: spool.spoolNo, before: spool.state, after: admission.state });
  }

  const located = new Set(spools.map(keyOf));
  for (const item of judged) if (!located.has(spoolOf(item))) verdicts.push("unvouched");

  await work.copyTo(tx);
  await writeRejectedSamples(tx, work.rejected);
  await writeDeadLetters(tx, letters);
  const moved = changes.filter(({ before, after }) => before !== after);
  await writeRanges(tx, moved);
  await writeCoverageAndWatermarks(tx, { coverage: work.coverage, dirtyHours: work.dirtyHours(), changes: moved });
  return {
    acknowledgements: spools.map(({ nodeId, spoolId }, index) => ({
      nodeId,
      spoolId,
      contiguousSeq: changes[index]?.after.contiguousSeq ?? 0n,
      ranges: changes[index]?.after.pending ?? [],
    })),
    samplesStored: work.stored.count,
    samplesLate: work.late.count,
    verdicts,
    rejected: work.rejected.map(({ reason }) => reason),
    deadLetters: letters.map(({ reason }) => reason),
  };
}

function offerOf({ message, header, batch }: Judged, isRefused: boolean): OfferedBatch {
  return {
    from: header.seqFrom,
    to: header.seqTo,
    lowestUnackedSeq: header.lowestUnackedSeq,
    // Nothing can be complete that had not happened when the message came, nor by the word of a former machine.
    completeUntilMs: isRefused ? 0 : Math.min(Math.max(0, Number(batch?.completeUntilMs ?? 0n)), message.receivedAtMs),
    quarantined: batch === undefined,
  };
}

function letterOf(item: Judged, verdict: Verdict): DeadLetter {
  const range = `${item.header.spoolId} ${item.header.seqFrom}-${item.header.seqTo}`;
  const { reason, detail } =
    verdict === "quarantined" && item.letter !== undefined ? item.letter : { reason: verdict, detail: range };
  return { message: item.message, nodeId: item.message.nodeId, reason, detail };
}

/** The rows that the new batches of one transaction come to. */
class GroupRows {
  readonly stored: SampleRows;
  readonly late = new SampleRows(0);
  readonly rejected: RejectedSample[] = [];
  readonly coverage: Coverage[] = [];
  readonly #openDays: ReadonlySet<number>;
  readonly #dirty = new Map<string, DirtyHour>();
  #lastMarked = { nodeId: "", from: 0, to: 0 };

  constructor(openDays: ReadonlySet<number>, rowsExpected: number) {
    this.#openDays = openDays;
    this.stored = new SampleRows(rowsExpected);
  }

  addBatch(spool: LockedSpool, { message, header, batch, accepted, rejected }: Judged, nowMs: number): void {
    const { spoolNo, nodeId } = spool;
    const reject = (sample: Sample, reason: RejectionReason) =>
      this.rejected.push({ nodeId, spoolNo, seq: header.seqFrom, sample, reason });
    for (const { sample, reason } of rejected) reject(sample, reason);
    for (const { sample, firstDay, lastDay } of accepted) {
      if (spool.refused) {
        reject(sample, "CERTIFICATE_REVOKED");
        continue;
      }
      // A sample that reaches into a sealed day changes frozen figures, so it is merged with them.
      const isOpen = this.#openDays.has(lastDay) && (firstDay === lastDay || this.#openDays.has(firstDay));
      (isOpen ? this.stored : this.late).add(sample, spoolNo, header.seqFrom);
      this.#markDirty(nodeId, Number(sample.startMs), Number(sample.endMs));
    }
    if (batch !== undefined && !spool.refused)
      this.#addCoverage(spoolNo, header, batch, Math.max(nowMs, message.receivedAtMs));
  }

  dirtyHours(): DirtyHour[] {
    return [...this.#dirty.values()];
  }

  async copyTo(tx: StoreTransaction): Promise<void> {
    if (this.stored.count > 0) await tx.copyBinary(`cloud_pod_usage_samples (${sampleColumns})`, this.stored.finish());
    if (this.late.count > 0) await tx.copyBinary(`cloud_pod_usage_late_samples (${sampleColumns})`, this.late.finish());
  }

  #markDirty(nodeId: string, startMs: number, endMs: number): void {
    const hours = hoursTouched(startMs, endMs);
    // Neighbours in a batch nearly always touch the same hours.
    if (nodeId === this.#lastMarked.nodeId && hours.from >= this.#lastMarked.from && hours.to <= this.#lastMarked.to)
      return;
    this.#lastMarked = { nodeId, ...hours };
    for (let hourMs = hours.from; hourMs <= hours.to; hourMs += hourLengthMs)
      this.#dirty.set(`${nodeId}${hourMs}`, { nodeId, hourMs });
  }

  #addCoverage(spoolNo: number, header: BatchHeader, batch: SampleBatch, nowMs: number): void {
    const fromMs = Number(batch.coversFromMs);
    const toMs = Number(batch.coversToMs);
    // An impossible claim covers nothing: the time stays "missing" instead of becoming "not running".
    if (fromMs <= 0 || toMs <= fromMs || toMs > nowMs + 5 * 60_000) return;
    this.coverage.push({
      spoolNo,
      seqFrom: header.seqFrom,
      fromMs,
      toMs,
      unreadableVmids: batch.unreadableVmids,
      unsynchronised: batch.unsynchronised,
    });
  }
}
