import { SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";
import type { SpoolAcknowledgement } from "./store-messages.ts";

/** Tells hosts what is durable. */
export interface Acknowledgements {
  /** Publishes soon; a newer one of the same spool replaces an older one that has not left yet. */
  add(acknowledgements: readonly SpoolAcknowledgement[]): void;
  /** Resolves when nothing waits any more. */
  flushed(): Promise<void>;
}

/** Sends one message; rejects when the broker did not take it. */
export type Publish = (topic: string, payload: Uint8Array) => Promise<void>;

/** Spools whose acknowledgement waits; beyond it the oldest are forgotten, and their hosts offer again. */
const waitingMax = 20_000;
const sendersMax = 32;
/** So that a message stays far below the size that brokers take. */
const rangesMax = 1_000;

/**
 * An acknowledgement that cannot be delivered is dropped: the host offers the batch again, and it is
 * acknowledged as a duplicate.
 */
export function openAcknowledgements(publish: Publish, failed: (error: unknown) => void): Acknowledgements {
  const waiting = new Map<string, SpoolAcknowledgement>();
  let senders = 0;
  let idle = Promise.withResolvers<void>();
  idle.resolve();

  async function send(): Promise<void> {
    for (const [key, acknowledgement] of waiting) {
      waiting.delete(key);
      await publish(nodeTopics(acknowledgement.nodeId).acks, encode(acknowledgement)).catch(failed);
    }
    if (--senders === 0) idle.resolve();
  }

  return {
    add(acknowledgements) {
      for (const acknowledgement of acknowledgements) {
        const key = `${acknowledgement.nodeId}/${acknowledgement.spoolId}`;
        waiting.delete(key);
        waiting.set(key, acknowledgement);
      }
      for (const key of waiting.keys()) {
        if (waiting.size <= waitingMax) break;
        waiting.delete(key);
      }
      if (senders === 0 && waiting.size > 0) idle = Promise.withResolvers();
      for (let free = Math.min(sendersMax - senders, waiting.size); free > 0; free--) {
        senders++;
        void send();
      }
    },
    flushed: () => idle.promise,
  };
}

function encode({ spoolId, contiguousSeq, ranges }: SpoolAcknowledgement): Uint8Array {
  const nearest = ranges.slice(0, rangesMax).map(({ from, to }) => ({ from, to }));
  return SampleAcks.encode({ spoolId, contiguousSeq, ranges: nearest }).finish();
}
