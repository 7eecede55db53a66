/** Work for one container; it must not throw. */
export type QueuedWork = () => Promise<void>;

/** Runs work of one container in order and of different containers side by side, within bounds. */
export interface CommandQueue {
  /** False when the queue is full: nothing was taken. */
  offer(vmid: number, work: QueuedWork): boolean;
  /** Work that waits or runs. */
  size(): number;
  /** Starts nothing more; what runs is left alone. */
  close(): void;
}

/**
 * Makes a queue. Per container work runs one at a time in the order offered; in all, at most
 * `maxParallel` run and `maxWaiting` wait.
 */
export function createCommandQueue(bounds: {
  readonly maxParallel: number;
  readonly maxWaiting: number;
}): CommandQueue {
  const waiting: { readonly vmid: number; readonly work: QueuedWork }[] = [];
  const busy = new Set<number>();
  let closed = false;

  const next = (): void => {
    while (!closed && busy.size < bounds.maxParallel) {
      const index = waiting.findIndex(({ vmid }) => !busy.has(vmid));
      const [entry] = index < 0 ? [] : waiting.splice(index, 1);
      if (entry === undefined) return;
      busy.add(entry.vmid);
      void entry.work().finally(() => {
        busy.delete(entry.vmid);
        next();
      });
    }
  };
  return {
    offer(vmid, work) {
      if (closed || waiting.length >= bounds.maxWaiting) return false;
      waiting.push({ vmid, work });
      next();
      return true;
    },
    size: () => waiting.length + busy.size,
    close: () => void (closed = true),
  };
}
