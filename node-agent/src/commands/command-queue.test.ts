import { expect, test } from "vitest";
import { createCommandQueue } from "./command-queue.ts";

/** Work that ends when told, and a record of what runs. */
function recorder() {
  const running = new Set<string>();
  const log: string[] = [];
  const ends = new Map<string, () => void>();
  const work = (name: string) => () => {
    running.add(name);
    log.push(name);
    return new Promise<void>((resolve) => {
      ends.set(name, () => {
        running.delete(name);
        resolve();
      });
    });
  };
  const end = async (name: string): Promise<void> => {
    ends.get(name)?.();
    // The queue goes on in the microtasks after the end.
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { running, log, work, end };
}

test("work of one container runs in order, of others beside it, up to the bound", async () => {
  const queue = createCommandQueue({ maxParallel: 2, maxWaiting: 10 });
  const { running, log, work, end } = recorder();
  for (const [vmid, name] of [
    [1, "a1"],
    [1, "a2"],
    [2, "b1"],
    [3, "c1"],
  ] as const)
    queue.offer(vmid, work(name));
  expect([...running]).toEqual(["a1", "b1"]);
  await end("b1");
  expect([...running]).toEqual(["a1", "c1"]);
  await end("a1");
  expect([...running]).toEqual(["c1", "a2"]);
  await end("a2");
  await end("c1");
  expect(log).toEqual(["a1", "b1", "c1", "a2"]);
  expect(queue.size()).toBe(0);
});

test("a full queue takes nothing more, a closed one starts nothing more", async () => {
  const queue = createCommandQueue({ maxParallel: 1, maxWaiting: 1 });
  const { running, work, end } = recorder();
  expect([queue.offer(1, work("a")), queue.offer(2, work("b")), queue.offer(3, work("c"))]).toEqual([
    true,
    true,
    false,
  ]);
  queue.close();
  await end("a");
  expect([...running]).toEqual([]);
  expect(queue.offer(4, work("d"))).toBe(false);
});
