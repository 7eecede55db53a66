import { expect, test } from "vitest";
import { checkVersion, etagOf, parseIfMatch } from "./version-check.ts";

test.each([
  [undefined, undefined],
  ["*", undefined],
  [etagOf(7), 7],
  ['W/"7"', 7],
  ["7", 7],
])("If-Match %j names version %j", (header, version) => {
  expect(parseIfMatch(header)).toBe(version);
});

test.each(['"abc"', "", '"7", "8"'])("If-Match %j is no version of ours", (header) => {
  expect(() => parseIfMatch(header)).toThrow(
    expect.objectContaining({ kind: "precondition-failed", code: "VERSION_MISMATCH" }),
  );
});

test("a write decided on another version is refused, on this one or on none it is not", () => {
  expect(() => checkVersion(6, 7)).toThrow(
    expect.objectContaining({ code: "VERSION_MISMATCH", details: { version: 7 } }),
  );
  expect(() => checkVersion(7, 7)).not.toThrow();
  expect(() => checkVersion(undefined, 7)).not.toThrow();
});
