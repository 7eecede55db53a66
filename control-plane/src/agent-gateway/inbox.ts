/** The reading half of a stream. */
export interface MessageSource {
  pause(): unknown;
  resume(): unknown;
}

/** Messages of one session that wait for their turn. */
export interface Inbox<T> {
  /** Puts a message at the end; the source is paused while too many wait. */
  put(message: T): void;
  /** Handles nothing more. */
  close(): void;
}

const waitingMax = 128;

/**
 * Handles messages one after the other: progress must not overtake acceptance, nor a result its progress.
 * The first failure ends the inbox and is passed on.
 */
export function createInbox<T>(
  source: MessageSource,
  handle: (message: T) => Promise<void>,
  onFailure: (error: unknown) => void,
): Inbox<T> {
  const waiting: T[] = [];
  let working = false;
  let closed = false;

  const work = async (): Promise<void> => {
    working = true;
    try {
      for (let message = waiting.shift(); message !== undefined && !closed; message = waiting.shift()) {
        await handle(message);
        if (waiting.length === waitingMax / 2) source.resume();
      }
    } catch (error) {
      closed = true;
      onFailure(error);
    } finally {
      working = false;
    }
  };
  return {
    put(message) {
      if (closed) return;
      waiting.push(message);
      if (waiting.length >= waitingMax) source.pause();
      if (!working) void work();
    },
    close() {
      closed = true;
      waiting.length = 0;
    },
  };
}
