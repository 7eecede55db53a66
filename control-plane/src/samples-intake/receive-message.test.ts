import { describe, expect, test } from "vitest";
import { nodeTopics } from "@cloudpods/shared/topics";
import { Heartbeat, NodePresence } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { messageReceiver } from "./receive-message.ts";
import type { IncomingMessage } from "./store-messages.ts";

const nodeId = "0198a3f0-0000-7000-8000-000000000001";
const topics = nodeTopics(nodeId);

/** A receiver over a queue with the given room, and everything that went where. */
function receiverWith(room: number, patienceMs = 5_000) {
  const taken: IncomingMessage[] = [];
  const seen: string[] = [];
  let waiting = Promise.withResolvers<void>();
  const receive = messageReceiver({
    lanes: {
      offer: (message) => room > 0 && (room--, taken.push(message) > 0),
      room: () => waiting.promise,
      queuedBytes: () => 0,
      oldestAgeMs: () => 0,
      drain: () => Promise.resolve(),
    },
    beats: {
      addHeartbeat: (beat) => seen.push(`beat ${beat.nodeId}`),
      addPresence: (presence) => seen.push(`presence ${presence.online}`),
      flush: () => Promise.resolve(),
    },
    metrics: { dropped: (reason) => seen.push(reason) },
    patienceMs,
  });
  const makeRoom = (more: number) => {
    room += more;
    waiting.resolve();
    waiting = Promise.withResolvers();
  };
  return { receive, taken, seen, makeRoom };
}

const sample = () => ({ topic: topics.samples, payload: Buffer.from("x") });

describe("messageReceiver", () => {
  test("sorts by channel and names the node of the topic", () => {
    const { receive, taken, seen } = receiverWith(10);
    expect(receive(sample())).toBeUndefined();
    void receive({
      topic: topics.heartbeat,
      payload: Buffer.from(Heartbeat.encode(Heartbeat.decode(new Uint8Array())).finish()),
    });
    void receive({
      topic: topics.status,
      payload: Buffer.from(NodePresence.encode({ online: true, bootId: "" }).finish()),
    });
    expect(taken.map((message) => message.nodeId)).toEqual([nodeId]);
    expect(seen).toEqual([`beat ${nodeId}`, "presence true"]);
  });

  test.each(["cloudpods/v1/nodes/no-uuid/samples", "cloudpods/v1/nodes/samples", "x"])("does not take %s", (topic) => {
    const { receive, taken, seen } = receiverWith(10);
    expect(receive({ topic, payload: Buffer.from("x") })).toBeUndefined();
    expect(taken).toEqual([]);
    expect(seen).toEqual(["UNKNOWN_TOPIC"]);
  });

  test("holds up the broker while the queue is full", async () => {
    const { receive, taken, makeRoom } = receiverWith(0);
    let isDone = false;
    const held = receive(sample())?.then(() => (isDone = true));
    await Promise.resolve();
    expect(isDone).toBe(false);
    makeRoom(1);
    await held;
    expect(taken).toHaveLength(1);
  });

  test("lets messages go when it stays full, and takes them again when there is room", async () => {
    const { receive, taken, seen, makeRoom } = receiverWith(0, 30);
    await receive(sample());
    expect(seen).toEqual(["OVERLOADED"]);
    const startedMs = performance.now();
    for (let turn = 0; turn < 20; turn++) await receive(sample());
    // None of them waited once more, or heartbeats behind them would be late.
    expect(performance.now() - startedMs).toBeLessThan(300);
    expect(seen).toHaveLength(21);
    makeRoom(1);
    expect(receive(sample())).toBeUndefined();
    expect(taken).toHaveLength(1);
    const held = receive(sample());
    makeRoom(1);
    await held;
    expect(taken).toHaveLength(2);
  });
});
