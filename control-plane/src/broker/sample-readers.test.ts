import { expect, test } from "vitest";
import { SampleReaders } from "./sample-readers.ts";

test("samples wait only while nobody reads, and not for ever", async () => {
  const readers = new SampleReaders<string>();
  const order: string[] = [];
  const ended = new Promise<void>((resolve) =>
    readers.whenRead(20, () => {
      order.push("waited in vain");
      resolve();
    }),
  );
  expect(order).toEqual([]);
  await ended;
  readers.whenRead(60_000, () => order.push("first"));
  readers.add("ingest");
  readers.whenRead(60_000, () => order.push("second"));
  readers.delete("ingest");
  readers.whenRead(60_000, () => order.push("third"));
  expect(order).toEqual(["waited in vain", "first", "second"]);
  readers.releaseAll();
  expect(order.at(-1)).toBe("third");
});
