import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeCursor, encodeCursor, listQuery, toPage } from "./list-page.ts";

const id = fc.uuid();

test("a cursor comes back as the key that it was made of", () => {
  fc.assert(
    fc.property(fc.array(fc.string()), id, (parts, last) => {
      const key = [...parts, last];
      expect(decodeCursor(encodeCursor(key), key.length)).toEqual(key);
    }),
  );
});

test("no text is a cursor by accident, nor makes anything but the one refusal", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(() => decodeCursor(text, 1)).toThrow(expect.objectContaining({ code: "CURSOR_INVALID", kind: "invalid" }));
    }),
  );
});

test.each([
  ["another list's", encodeCursor(["a", "019a0000-0000-7000-8000-000000000001"])],
  ["one without an id at its end", encodeCursor(["'; DROP TABLE users"])],
])("a cursor is refused when it is %s", (_, cursor) => {
  expect(() => decodeCursor(cursor, 1)).toThrow(expect.objectContaining({ code: "CURSOR_INVALID" }));
});

test("walking by cursors sees every row once, whatever the page size", () => {
  fc.assert(
    fc.property(fc.uniqueArray(id, { maxLength: 40 }), fc.integer({ min: 1, max: 7 }), (ids, limit) => {
      const sorted = ids.toSorted();
      const seen: string[] = [];
      let cursor: string | undefined;
      do {
        const after = decodeCursor(cursor, 1)?.[0] ?? "";
        const rows = sorted.filter((row) => row > after).slice(0, limit + 1);
        const page = toPage(
          rows,
          limit,
          (row) => [row],
          (row) => row,
        );
        seen.push(...page.data);
        cursor = page.nextCursor ?? undefined;
      } while (cursor !== undefined);
      expect(seen).toEqual(sorted);
    }),
  );
});

test.each(["0", "201", "-1", "1.5", "x", ""])("the limit %j is refused", (limit) => {
  expect(listQuery.safeParse({ limit }).success).toBe(false);
});

test("the limit is 50 when nobody says otherwise", () => {
  expect(listQuery.parse({}).limit).toBe(50);
});
