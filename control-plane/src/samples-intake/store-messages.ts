import { isUuid } from "@cloudpods/shared/ids";
import type { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { admitBatches, type OfferedBatch, type Verdict } from "./admit-batches.ts";
import { GroupRows, withDays, type SampleOfDays } from "./group-rows.ts";
import { isWithinStay, judgeSample, type RejectionReason } from "./judge-sample.ts";
import type { Hosting, NodeHosting, StayQuestion } from "./hosting.ts";
import { readSamplesMessage, type BatchHeader, type SamplesMessage } from "./read-message.ts";
import { writeCoverageAndWatermarks, writeDeadLetters, writeRejectedSamples, type DeadLetter } from "./side-rows.ts";
import type { SeqRange } from "./sequence-ranges.ts";
import { lockSpools, writeRanges, type LockedSpool, type SpoolChange, type SpoolKey } from "./spool-rows.ts";
import type { StorePool, StoreTransaction } from "./store-pool.ts";
import { lockOpenDays, mayOpenDay, type UsageDays } from "./usage-days.ts";

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

/** How long one group's transaction may take. */
export const transactionDeadlineMs = 60_000;

/** A message of a known node, read and judged; nothing of the database's state of its spool is known yet. */
interface Judged {
  readonly message: IncomingMessage;
  readonly header: BatchHeader;
  /** Undefined when the content cannot be stored. */
  readonly batch: SampleBatch | undefined;
  readonly letter: { readonly reason: string; readonly detail: string } | undefined;
  readonly accepted: SampleOfDays[];
  readonly rejected: { readonly sample: Sample; readonly reason: RejectionReason }[];
}

/** Messages that were read and judged; what is left is to store them in a transaction. */
export interface JudgedGroup {
  readonly judged: readonly Judged[];
  readonly letters: readonly DeadLetter[];
  readonly days: readonly number[];
  readonly nowMs: number;
}

/**
 * Stores a group of messages in one transaction. When it returns, everything in the acknowledgements is
 * durable; when it throws, nothing was stored and the same group may be given again.
 */
export async function storeMessages(
  context: StoreContext,
  messages: readonly IncomingMessage[],
): Promise<StoreOutcome> {
  const group = await judgeMessages(context, messages);
  return await context.pool.transaction(transactionDeadlineMs, (tx) => storeGroup(tx, group));
}

/** Reads and judges messages and makes the days that they need; `storeGroup` does the rest. */
export async function judgeMessages(
  context: Omit<StoreContext, "pool">,
  messages: readonly IncomingMessage[],
): Promise<JudgedGroup> {
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
  return { judged, letters, days: [...days], nowMs };
}

function judgeBatch(
  message: IncomingMessage,
  header: BatchHeader,
  batch: SampleBatch,
  node: NodeHosting,
  nowMs: number,
): Judged {
  const accepted: SampleOfDays[] = [];
  const rejected: Judged["rejected"] = [];
  const letter = message.poison === undefined ? undefined : { reason: "REFUSED_BY_DATABASE", detail: message.poison };
  if (letter !== undefined) return { message, header, batch: undefined, letter, accepted, rejected };
  const isRemoved = node.state === "removed";
  for (const sample of batch.samples) {
    const reason = judgeSample(sample, isRemoved, node.stays.get(sample.podId), nowMs);
    if (reason === undefined) accepted.push(withDays(sample));
    else rejected.push({ sample, reason });
  }
  return { message, header, batch, letter, accepted, rejected };
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

/** Stores a group in the caller's transaction: what the outcome says holds once that has committed. */
export async function storeGroup(tx: StoreTransaction, group: JudgedGroup): Promise<StoreOutcome> {
  const { judged, days, nowMs } = group;
  const letters = [...group.letters];
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
      if (verdict === "new") addBatch(work, spool, item, nowMs);
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

function addBatch(rows: GroupRows, spool: LockedSpool, item: Judged, nowMs: number): void {
  const { message, header, batch, accepted, rejected } = item;
  const origin = { nodeId: spool.nodeId, spoolNo: spool.spoolNo, seq: header.seqFrom };
  for (const { sample, reason } of rejected) rows.reject(origin, sample, reason);
  for (const judged of accepted) {
    if (spool.refused) rows.reject(origin, judged.sample, "CERTIFICATE_REVOKED");
    else rows.add(origin, judged);
  }
  if (batch !== undefined && !spool.refused) rows.cover(origin, batch, Math.max(nowMs, message.receivedAtMs));
}
