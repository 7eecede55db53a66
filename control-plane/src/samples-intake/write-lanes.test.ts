import { describe, expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import type { IncomingMessage, StoreOutcome } from "./store-messages.ts";
import { openWriteLanes } from "./write-lanes.ts";

const outcome: StoreOutcome = {
  acknowledgements: [],
  samplesStored: 0,
  samplesLate: 0,
  verdicts: [],
  rejected: [],
  deadLetters: [],
};
const message = (node: number, receivedAtMs = 0): IncomingMessage => ({
  nodeId: `0198a3f0-0000-7000-8000-${node.toString(16).padStart(12, "0")}`,
  payload: new Uint8Array(100),
  receivedAtMs,
});

function lanesWith(limits: Partial<Parameters<typeof openWriteLanes>[0]> = {}) {
  const groups: (readonly IncomingMessage[])[] = [];
  const gate = { open: Promise.resolve() as Promise<unknown> };
  const lanes = openWriteLanes(
    { lanes: 2, groupBytesMax: 300, lingerMs: 0, queueBytesMax: 1_000, ...limits },
    {
      async store(group) {
        await gate.open;
        groups.push(group);
        return outcome;
      },
      stored: () => {},
      failed: () => {},
      dropped: () => {},
      signal: new AbortController().signal,
    },
  );
  return { lanes, groups, gate };
}

describe("openWriteLanes", () => {
  test("groups what waits, within the limit of bytes, each node in one lane and in its order", async () => {
    const { lanes, groups } = lanesWith();
    for (let turn = 0; turn < 5; turn++) for (const node of [1, 2]) lanes.offer(message(node, turn));
    await lanes.drain();
    expect(groups.flat()).toHaveLength(10);
    expect(Math.max(...groups.map((group) => group.length))).toBe(3);
    for (const group of groups) expect(new Set(group.map((m) => m.nodeId)).size).toBe(1);
    for (const node of [1, 2]) {
      const turns = groups
        .flat()
        .filter((m) => m.nodeId === message(node).nodeId)
        .map((m) => m.receivedAtMs);
      expect(turns).toEqual([0, 1, 2, 3, 4]);
    }
  });

  test("takes no more than it may hold, and says when there is room", async () => {
    const { lanes, gate } = lanesWith();
    const release = Promise.withResolvers<void>();
    gate.open = release.promise;
    const taken = Array.from({ length: 12 }, () => lanes.offer(message(1))).filter(Boolean);
    expect(taken).toHaveLength(10);
    expect(lanes.queuedBytes()).toBe(1_000);
    let hasRoom = false;
    void lanes.room().then(() => (hasRoom = true));
    expect(hasRoom).toBe(false);
    release.resolve();
    await until("room", () => hasRoom);
    expect(lanes.offer(message(1))).toBe(true);
    await lanes.drain();
    expect(lanes.queuedBytes()).toBe(0);
  });

  test("takes nothing after the drain has begun", async () => {
    const { lanes } = lanesWith();
    await lanes.drain();
    expect(lanes.offer(message(1))).toBe(false);
  });

  test("tells the age of what waits longest, also while it is being stored", async () => {
    const { lanes, gate } = lanesWith();
    const release = Promise.withResolvers<void>();
    gate.open = release.promise;
    expect(lanes.oldestAgeMs(1_000)).toBe(0);
    lanes.offer(message(1, 400));
    lanes.offer(message(2, 700));
    expect(lanes.oldestAgeMs(1_000)).toBe(600);
    release.resolve();
    await lanes.drain();
    expect(lanes.oldestAgeMs(1_000)).toBe(0);
  });
});
