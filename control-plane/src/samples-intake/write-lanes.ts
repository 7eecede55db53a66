import { storePatiently, type Patience } from "./store-patiently.ts";
import type { IncomingMessage } from "./store-messages.ts";

/** Bounds of what waits in memory and of one transaction. */
export interface LaneLimits {
  /** Transactions at a time. Two let one be prepared here while PostgreSQL works on the other. */
  readonly lanes: number;
  readonly groupBytesMax: number;
  /** How long a first message waits for company. */
  readonly lingerMs: number;
  /** Bytes waiting in all lanes; more are not taken. */
  readonly queueBytesMax: number;
}

/** Messages on their way into the database. */
export interface WriteLanes {
  /** Takes a message, or says that there is no room now. */
  offer(message: IncomingMessage): boolean;
  /** Resolves when there may be room. */
  room(): Promise<void>;
  queuedBytes(): number;
  /** How long the oldest message waits. */
  oldestAgeMs(nowMs: number): number;
  /** Takes nothing any more; resolves when all lanes are at rest. */
  drain(): Promise<void>;
}

interface Lane {
  readonly queue: IncomingMessage[];
  group: readonly IncomingMessage[];
  running: Promise<void> | undefined;
}

/** Messages of one node stay in one lane, so that lanes do not wait for each other's spools. */
export function openWriteLanes(limits: LaneLimits, patience: Patience): WriteLanes {
  const lanes: Lane[] = Array.from({ length: limits.lanes }, () => ({ queue: [], group: [], running: undefined }));
  let queuedBytes = 0;
  let open = true;
  let waiting: (() => void)[] = [];

  async function run(lane: Lane): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, limits.lingerMs));
    while (lane.queue.length > 0 && !patience.signal.aborted) {
      lane.group = takeGroup(lane.queue, limits.groupBytesMax);
      await storePatiently(lane.group, patience);
      queuedBytes -= bytesOf(lane.group);
      lane.group = [];
      const waiters = waiting;
      waiting = [];
      for (const resume of waiters) resume();
    }
    lane.running = undefined;
  }

  return {
    offer(message) {
      if (!open || queuedBytes >= limits.queueBytesMax) return false;
      const lane = lanes[laneOf(message.nodeId, lanes.length)];
      if (lane === undefined) return false;
      queuedBytes += message.payload.length;
      lane.queue.push(message);
      lane.running ??= run(lane);
      return true;
    },
    room: () =>
      queuedBytes < limits.queueBytesMax ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve)),
    queuedBytes: () => queuedBytes,
    oldestAgeMs(nowMs) {
      const oldest = lanes.map(({ group, queue }) => (group[0] ?? queue[0])?.receivedAtMs ?? nowMs);
      return nowMs - Math.min(...oldest);
    },
    async drain() {
      open = false;
      await Promise.all(lanes.map((lane) => lane.running ?? Promise.resolve()));
    },
  };
}

function takeGroup(queue: IncomingMessage[], bytesMax: number): IncomingMessage[] {
  let bytes = 0;
  let count = 0;
  while (count < queue.length && (count === 0 || bytes < bytesMax)) bytes += queue[count++]?.payload.length ?? 0;
  return queue.splice(0, count);
}

function bytesOf(messages: readonly IncomingMessage[]): number {
  return messages.reduce((sum, message) => sum + message.payload.length, 0);
}

/** Node ids end in random digits. */
function laneOf(nodeId: string, lanes: number): number {
  return Number.parseInt(nodeId.slice(-6), 16) % lanes || 0;
}
