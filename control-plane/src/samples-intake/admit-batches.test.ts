import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { admitBatches, type OfferedBatch, type SpoolState } from "./admit-batches.ts";

const empty: SpoolState = { contiguousSeq: 0n, completeUntilMs: 0, pending: [], gaps: [] };

function offer(from: number, to = from, extras: Partial<OfferedBatch> = {}): OfferedBatch {
  return {
    from: BigInt(from),
    to: BigInt(to),
    lowestUnackedSeq: 1n,
    completeUntilMs: 0,
    quarantined: false,
    ...extras,
  };
}

/** The same rules over plain sets of numbers. */
class Model {
  readonly stored = new Set<number>();
  readonly settled = new Set<number>();

  admit(batch: OfferedBatch): string {
    const numbers = span(Number(batch.from), Number(batch.to));
    const lowest = Math.min(Number(batch.lowestUnackedSeq), Number(batch.from));
    for (let n = 1; n < lowest; n++) this.settled.add(n);
    const known = numbers.filter((n) => this.stored.has(n)).length;
    if (known === numbers.length) return "duplicate";
    for (const n of numbers) this.settled.add(n);
    if (known > 0) return "RANGE_OVERLAPS";
    if (batch.quarantined) return "quarantined";
    for (const n of numbers) this.stored.add(n);
    return "new";
  }
}

function span(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

function settledNumbers(state: SpoolState): number[] {
  return [{ from: 1n, to: state.contiguousSeq }, ...state.pending].flatMap(({ from, to }) =>
    span(Number(from), Number(to)),
  );
}

const anyBatch = fc
  .record({
    from: fc.integer({ min: 1, max: 40 }),
    length: fc.integer({ min: 1, max: 6 }),
    lowest: fc.integer({ min: 1, max: 45 }),
    quarantined: fc.boolean(),
  })
  .map(({ from, length, lowest, quarantined }) =>
    offer(from, from + length - 1, { lowestUnackedSeq: BigInt(lowest % 3 === 0 ? lowest : 1), quarantined }),
  );

/** An honest host's history: 1..n cut into batches, delivered in any order, again and again, some while we crash. */
const delivery = fc
  .record({
    sizes: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 15 }),
    repeats: fc.integer({ min: 1, max: 4 }),
  })
  .chain(({ sizes, repeats }) => {
    let next = 1;
    const batches = sizes.map((size) => offer(next, (next += size) - 1));
    const copies = Array.from({ length: repeats }, () => batches).flat();
    return fc.record({
      batches: fc.constant(batches),
      order: fc.shuffledSubarray(copies, { minLength: 0 }).map((some) => [...some, ...batches]),
      groups: fc.array(fc.record({ size: fc.integer({ min: 1, max: 6 }), crash: fc.boolean() }), {
        minLength: 1,
        maxLength: 40,
      }),
    });
  });

describe("admitBatches", () => {
  test("agrees with plain sets of numbers, whatever comes", () => {
    fc.assert(
      fc.property(fc.array(anyBatch, { maxLength: 40 }), (batches) => {
        const model = new Model();
        let state = empty;
        for (const batch of batches) {
          const step = admitBatches(state, [batch]);
          state = step.state;
          expect(step.verdicts).toEqual([model.admit(batch)]);
        }
        expect(settledNumbers(state)).toEqual([...model.settled].toSorted((a, b) => a - b));
        const lost = [...model.settled].filter((n) => !model.stored.has(n)).toSorted((a, b) => a - b);
        expect(state.gaps.flatMap(({ from, to }) => span(Number(from), Number(to)))).toEqual(lost);
        expect(settledNumbers(state)).not.toContain(Number(state.contiguousSeq) + 1);
      }),
      { numRuns: 2_000 },
    );
  });

  test("counts each batch once for any order, repetition, grouping and crash", () => {
    fc.assert(
      fc.property(delivery, ({ batches, order, groups }) => {
        const counted = new Map<bigint, number>();
        let state = empty;
        const queue = [...order];
        for (let turn = 0; queue.length > 0; turn++) {
          const { size, crash } = groups[turn % groups.length] ?? { size: 1, crash: false };
          const group = queue.splice(0, size);
          const step = admitBatches(state, group);
          if (crash && turn < groups.length) {
            queue.push(...group); // nothing was committed: the host offers them again
            continue;
          }
          state = step.state;
          group.forEach((batch, index) => {
            if (step.verdicts[index] === "new") counted.set(batch.from, (counted.get(batch.from) ?? 0) + 1);
          });
        }
        expect([...counted.values()].every((times) => times === 1)).toBe(true);
        expect(counted.size).toBe(batches.length);
        expect(state).toEqual({ ...empty, contiguousSeq: batches.at(-1)?.to ?? 0n });
      }),
      { numRuns: 1_000 },
    );
  });

  test("passes numbers that the host lost and says which", () => {
    const { state } = admitBatches(empty, [offer(1), offer(4), offer(9, 9, { lowestUnackedSeq: 7n })]);
    expect(state.contiguousSeq).toBe(6n);
    expect(state.gaps).toEqual([
      { from: 2n, to: 3n },
      { from: 5n, to: 6n },
    ]);
    expect(state.pending).toEqual([{ from: 9n, to: 9n, completeUntilMs: 0 }]);
  });

  test("a number declared lost that arrives after all counts, once", () => {
    const lost = admitBatches(empty, [offer(5, 5, { lowestUnackedSeq: 5n })]).state;
    const { verdicts, state } = admitBatches(lost, [offer(2, 3), offer(2, 3)]);
    expect(verdicts).toEqual(["new", "duplicate"]);
    expect(state.gaps).toEqual([
      { from: 1n, to: 1n },
      { from: 4n, to: 4n },
    ]);
  });

  test("quarantined numbers do not hold up those behind them and can be delivered again", () => {
    const { verdicts, state } = admitBatches(empty, [offer(1, 1, { quarantined: true }), offer(2)]);
    expect(verdicts).toEqual(["quarantined", "new"]);
    expect(state).toMatchObject({ contiguousSeq: 2n, gaps: [{ from: 1n, to: 1n }] });
    expect(admitBatches(state, [offer(1)])).toMatchObject({ verdicts: ["new"], state: { gaps: [] } });
  });

  test("completeness follows the watermark, not the newest batch", () => {
    const early = admitBatches(empty, [
      offer(1, 1, { completeUntilMs: 100 }),
      offer(3, 3, { completeUntilMs: 300 }),
    ]).state;
    expect(early.completeUntilMs).toBe(100);
    expect(admitBatches(early, [offer(2, 2, { completeUntilMs: 200 })]).state).toMatchObject({
      contiguousSeq: 3n,
      completeUntilMs: 300,
    });
  });

  test.each([
    [offer(0), "RANGE_INVALID"],
    [offer(5, 4), "RANGE_INVALID"],
    [offer(1, 100_001), "RANGE_TOO_LONG"],
    [offer(1_000_001), "RANGE_TOO_FAR"],
  ] as const)("refuses a nonsensical range and changes nothing", (batch, fault) => {
    expect(admitBatches(empty, [batch])).toEqual({ verdicts: [fault], state: empty });
  });

  test("accepts the longest and the farthest range that are allowed", () => {
    expect(admitBatches(empty, [offer(1, 100_000)]).verdicts).toEqual(["new"]);
    expect(admitBatches(empty, [offer(1_000_000)]).verdicts).toEqual(["new"]);
  });

  test("refuses more holes than an honest host can make", () => {
    const scattered = Array.from({ length: 1_001 }, (_, index) => offer(2 * index + 2));
    const { verdicts, state } = admitBatches(empty, scattered);
    expect(verdicts.filter((verdict) => verdict === "new")).toHaveLength(1_000);
    expect(verdicts.at(-1)).toBe("RANGE_TOO_SCATTERED");
    expect(state.pending).toHaveLength(1_000);
  });
});
