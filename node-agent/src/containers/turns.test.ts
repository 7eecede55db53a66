import { describe, expect, it } from "vitest";
import { createKeyedTurns, createTurns } from "./turns.ts";

const NEVER = new AbortController().signal;

describe("turns", () => {
  it("never lets in more than the limit, and everybody in order", async () => {
    const turns = createTurns(2);
    let inside = 0;
    let most = 0;
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 20 }, (_, number) =>
        turns.take(NEVER, async () => {
          order.push(number);
          inside += 1;
          most = Math.max(most, inside);
          await new Promise((resolve) => setImmediate(resolve));
          inside -= 1;
        }),
      ),
    );
    expect(most).toBe(2);
    expect(order).toEqual(Array.from({ length: 20 }, (_, number) => number));
  });

  it("who gives up leaves his place to the next, and a failure frees it", async () => {
    const turns = createTurns(1);
    const first = Promise.withResolvers<void>();
    const running = turns.take(NEVER, () => first.promise);
    const impatient = new AbortController();
    const given = turns.take(impatient.signal, async () => "given up");
    const failing = turns.take(NEVER, () => Promise.reject(new Error("failed")));
    const last = turns.take(NEVER, async () => "last");
    impatient.abort(new Error("no more patience"));
    await expect(given).rejects.toThrow("no more patience");
    first.resolve();
    await running;
    await expect(failing).rejects.toThrow("failed");
    await expect(last).resolves.toBe("last");
  });

  it("keys do not wait for each other", async () => {
    const turns = createKeyedTurns();
    const hold = Promise.withResolvers<void>();
    const one = turns.take(1, NEVER, () => hold.promise);
    await expect(turns.take(2, NEVER, async () => "two")).resolves.toBe("two");
    let entered = false;
    const again = turns.take(1, NEVER, async () => void (entered = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(entered).toBe(false);
    hold.resolve();
    await Promise.all([one, again]);
    expect(entered).toBe(true);
  });
});
