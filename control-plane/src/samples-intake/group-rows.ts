import type { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { hourLengthMs, hoursTouched, type RejectionReason } from "./judge-sample.ts";
import { sampleColumns, SampleRows } from "./sample-rows.ts";
import type { Coverage, DirtyHour, RejectedSample } from "./side-rows.ts";
import type { StoreTransaction } from "./store-pool.ts";
import { usageDay } from "./usage-days.ts";

/** A sample that counts, with the first and the last day that it touches. */
export interface SampleOfDays {
  readonly sample: Sample;
  readonly firstDay: number;
  readonly lastDay: number;
}

/** Where a sample came from: the first number of its batch names the batch. */
export interface BatchOrigin {
  readonly nodeId: string;
  readonly spoolNo: number;
  readonly seq: bigint;
}

/** The days of a sample whose values were judged. */
export function withDays(sample: Sample): SampleOfDays {
  return { sample, firstDay: usageDay(Number(sample.startMs)), lastDay: usageDay(Number(sample.endMs) - 1) };
}

/** The rows that the samples of one transaction come to. */
export class GroupRows {
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

  add({ nodeId, spoolNo, seq }: BatchOrigin, { sample, firstDay, lastDay }: SampleOfDays): void {
    // A sample that reaches into a sealed day changes frozen figures, so it is merged with them.
    const isOpen = this.#openDays.has(lastDay) && (firstDay === lastDay || this.#openDays.has(firstDay));
    (isOpen ? this.stored : this.late).add(sample, spoolNo, seq);
    this.#markDirty(nodeId, Number(sample.startMs), Number(sample.endMs));
  }

  reject(origin: BatchOrigin, sample: Sample, reason: RejectionReason): void {
    this.rejected.push({ ...origin, sample, reason });
  }

  cover({ spoolNo, seq }: BatchOrigin, batch: SampleBatch, nowMs: number): void {
    const fromMs = Number(batch.coversFromMs);
    const toMs = Number(batch.coversToMs);
    // An impossible claim covers nothing: the time stays "missing" instead of becoming "not running".
    if (fromMs <= 0 || toMs <= fromMs || toMs > nowMs + 5 * 60_000) return;
    this.coverage.push({
      spoolNo,
      seqFrom: seq,
      fromMs,
      toMs,
      unreadableVmids: batch.unreadableVmids,
      unsynchronised: batch.unsynchronised,
    });
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
}
