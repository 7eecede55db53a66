import { expect, test } from "vitest";
import { createInbox } from "./inbox.ts";

function source() {
  const calls: string[] = [];
  return { calls, pause: () => calls.push("pause"), resume: () => calls.push("resume") };
}

test("messages are handled one at a time, in order", async () => {
  const handled: number[] = [];
  let running = 0;
  const inbox = createInbox<number>(
    source(),
    async (message) => {
      expect(++running).toBe(1);
      await Promise.resolve();
      handled.push(message);
      running--;
    },
    () => {},
  );
  for (let message = 0; message < 50; message++) inbox.put(message);
  await expect.poll(() => handled.length).toBe(50);
  expect(handled).toEqual(Array.from({ length: 50 }, (_, index) => index));
});

test("a flood pauses its source until half is done", async () => {
  const gate = Promise.withResolvers<void>();
  const flood = source();
  const inbox = createInbox<number>(
    flood,
    () => gate.promise,
    () => {},
  );
  for (let message = 0; message < 129; message++) inbox.put(message);
  expect(flood.calls).toEqual(["pause"]);
  gate.resolve();
  await expect.poll(() => flood.calls).toEqual(["pause", "resume"]);
});

test("the first failure ends it and is told once", async () => {
  const failures: unknown[] = [];
  const handled: number[] = [];
  const inbox = createInbox<number>(
    source(),
    async (message) => {
      handled.push(message);
      if (message === 1) throw new Error("broken");
    },
    (error) => failures.push(error),
  );
  for (let message = 0; message < 5; message++) inbox.put(message);
  await expect.poll(() => failures.length).toBe(1);
  inbox.put(9);
  await Promise.resolve();
  expect([handled, failures.length]).toEqual([[0, 1], 1]);
});
