import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { csvNumber, csvRecord } from "./csv.ts";

/** Reads RFC 4180 as written there, without any kindness. */
function parse(text: string): string[][] {
  const records: string[][] = [];
  let at = 0;
  while (at < text.length) {
    const record: string[] = [];
    for (;;) {
      let value = "";
      if (text[at] === '"') {
        for (at++; ; at++) {
          if (text[at] === undefined) throw new Error("the text ends inside quotes");
          if (text[at] !== '"') value += text[at];
          else if (text[at + 1] === '"') value += text[at++];
          else break;
        }
        at++;
      } else {
        while (at < text.length && !",\r\n".includes(text[at] ?? "")) {
          if (text[at] === '"') throw new Error("a quote inside an unquoted field");
          value += text[at++];
        }
      }
      record.push(value);
      if (text[at] !== ",") break;
      at++;
    }
    if (text.slice(at, at + 2) !== "\r\n") throw new Error(`no line break at ${at}`);
    at += 2;
    records.push(record);
  }
  return records;
}

const text = fc.oneof(
  fc.string(),
  fc.string({ unit: fc.constantFrom('"', ",", "\r", "\n", "=", "+", "-", "@", "'", " ", "\t", ";", "a") }),
);
const formula = /^\s*[=+\-@]/;

describe("csvRecord", () => {
  test("every text comes back as it was, but for the apostrophe before a formula", () => {
    fc.assert(
      fc.property(fc.array(fc.array(text, { minLength: 1, maxLength: 5 }), { maxLength: 5 }), (records) => {
        const read = parse(records.map((record) => csvRecord(record)).join(""));
        const expected = records.map((record) =>
          record.map((cell) => (formula.test(cell) || /^\s*[\t\r\n]/.test(cell) ? `'${cell}` : cell)),
        );
        expect(read).toEqual(expected);
      }),
    );
  });

  test("no text is left that a spreadsheet would calculate", () => {
    fc.assert(
      fc.property(text, (cell) => {
        expect(parse(csvRecord([cell]))[0]?.[0]).not.toMatch(formula);
      }),
    );
    expect(csvRecord(['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", " =1", "\uff1d1"])).toBe(
      `"'=HYPERLINK(""http://x"",""y"")","'+1","'-1","'@SUM(A1)","' =1","'\uff1d1"\r\n`,
    );
  });

  test("numbers stay numbers, negative and beyond 2^53 too", () => {
    const cells = [csvNumber(2n ** 63n), csvNumber("-0.0000000001"), null, csvNumber("34.20")];
    expect(csvRecord(cells)).toBe("9223372036854775808,-0.0000000001,,34.20\r\n");
  });

  test.each(["", "1e5", "NaN", "=1", "1,5", "0x10", " 1"])("%j is no number", (digits) => {
    expect(() => csvNumber(digits)).toThrow("not a plain decimal number");
  });
});
