import type { ReceivedPresence } from "./heartbeats.ts";
import type { ReceivedHeartbeat } from "./read-heartbeat.ts";
import { isAboutContent } from "./store-patiently.ts";

/** The newest heartbeat and presence of each node, until they are written. */
export interface HeartbeatBuffer {
  addHeartbeat(beat: ReceivedHeartbeat): void;
  addPresence(presence: ReceivedPresence): void;
  /** Writes what there is; a failure keeps it for the next time. */
  flush(): Promise<void>;
}

/** Nodes whose heartbeat waits; far more than one control plane serves. */
const nodesMax = 50_000;

/**
 * Only the newest word of a node matters, so memory is bounded by the number of nodes and a database that
 * was away is not flooded with the past.
 */
export function heartbeatBuffer(
  write: (heartbeats: readonly ReceivedHeartbeat[], presences: readonly ReceivedPresence[]) => Promise<void>,
  failed: (error: unknown) => void,
): HeartbeatBuffer {
  let beats = new Map<string, ReceivedHeartbeat>();
  let presences = new Map<string, ReceivedPresence>();
  let writing: Promise<void> | undefined;

  async function writeAll(): Promise<void> {
    const [takenBeats, takenPresences] = [beats, presences];
    [beats, presences] = [new Map(), new Map()];
    try {
      await write([...takenBeats.values()], [...takenPresences.values()]);
    } catch (error) {
      failed(error);
      // What the database refuses is not offered to it again; the next heartbeats are on their way.
      if (isAboutContent(error)) return;
      beats = new Map([...takenBeats, ...beats]);
      presences = new Map([...takenPresences, ...presences]);
      for (const nodeId of beats.keys())
        if (takenPresences.has(nodeId) && !takenBeats.has(nodeId)) presences.delete(nodeId);
    }
  }

  return {
    addHeartbeat(beat) {
      if (beats.size >= nodesMax && !beats.has(beat.nodeId)) return;
      beats.set(beat.nodeId, beat);
      // A heartbeat is itself a sign of presence, newer than a will that came before it.
      presences.delete(beat.nodeId);
    },
    addPresence(presence) {
      if (presences.size < nodesMax || presences.has(presence.nodeId)) presences.set(presence.nodeId, presence);
    },
    async flush() {
      if (writing === undefined && beats.size + presences.size > 0) {
        writing = writeAll().finally(() => {
          writing = undefined;
        });
      }
      await writing;
    },
  };
}
