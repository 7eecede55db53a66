import type { HeartbeatsWritten, ReceivedPresence } from "./heartbeats.ts";
import type { ReceivedHeartbeat } from "./read-heartbeat.ts";
import { isAboutContent } from "./store-patiently.ts";

/** The newest heartbeat and presence of each node, until they are written. */
export interface HeartbeatBuffer {
  addHeartbeat(beat: ReceivedHeartbeat): void;
  addPresence(presence: ReceivedPresence): void;
  /** Writes what there is; what fails or is of a busy host is kept for the next time. */
  flush(): Promise<void>;
}

/** Nodes whose heartbeat waits; far more than one control plane serves. */
const nodesMax = 50_000;

/**
 * Only the newest word of a node matters, so memory is bounded by the number of nodes and a database that
 * was away is not flooded with the past.
 */
export function heartbeatBuffer(
  write: (
    heartbeats: readonly ReceivedHeartbeat[],
    presences: readonly ReceivedPresence[],
  ) => Promise<Pick<HeartbeatsWritten, "busy">>,
  failed: (error: unknown) => void,
): HeartbeatBuffer {
  let beats = new Map<string, ReceivedHeartbeat>();
  let presences = new Map<string, ReceivedPresence>();
  let writing: Promise<void> | undefined;

  /** Takes back what was not written, unless something newer came meanwhile. */
  function keep(
    oldBeats: readonly (readonly [string, ReceivedHeartbeat])[],
    oldPresences: readonly (readonly [string, ReceivedPresence])[],
  ): void {
    presences = new Map([...oldPresences.filter(([nodeId]) => !beats.has(nodeId)), ...presences]);
    beats = new Map([...oldBeats, ...beats]);
  }

  async function writeAll(): Promise<void> {
    const [takenBeats, takenPresences] = [beats, presences];
    [beats, presences] = [new Map(), new Map()];
    try {
      const { busy } = await write([...takenBeats.values()], [...takenPresences.values()]);
      const isBusy = ([nodeId]: readonly [string, unknown]): boolean => busy.has(nodeId);
      if (busy.size > 0) keep([...takenBeats].filter(isBusy), [...takenPresences].filter(isBusy));
    } catch (error) {
      failed(error);
      // What the database refuses is not offered to it again; the next heartbeats are on their way.
      if (!isAboutContent(error)) keep([...takenBeats], [...takenPresences]);
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
