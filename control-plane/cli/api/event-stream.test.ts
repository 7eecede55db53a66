import fc from "fast-check";
import { expect, test } from "vitest";
import { parseEvents } from "./event-stream.ts";

async function read(pieces: readonly string[]) {
  async function* source() {
    yield* pieces;
  }
  const events = [];
  for await (const event of parseEvents(source())) events.push(event);
  return events;
}

const text =
  'id: 1\nevent: progress\ndata: {"a":1}\n\n: still here\n\nid: 2\r\ndata: x\r\ndata: y\r\n\r\ndata:z\n\ndata: cut off';
const expected = [
  { id: "1", data: '{"a":1}' },
  { id: "2", data: "x\ny" },
  { id: "2", data: "z" },
];

test("events are the same however the text is cut; what was cut off is none", async () => {
  expect(await read([text])).toEqual(expected);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 0, max: text.length }), { maxLength: 12 }), async (cuts) => {
      const at = [0, ...cuts.toSorted((a, b) => a - b), text.length];
      expect(await read(at.slice(1).map((end, index) => text.slice(at[index], end)))).toEqual(expected);
    }),
  );
});
