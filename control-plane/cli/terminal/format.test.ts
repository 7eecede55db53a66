import fc from "fast-check";
import { expect, test } from "vitest";
import {
  countOf,
  formatBytes,
  formatDuration,
  formatMb,
  harmless,
  parseDuration,
  parsePair,
  parseSizeMb,
} from "./format.ts";

test.each([
  [0, "0s"],
  [999, "0s"],
  [59_000, "59s"],
  [60_000, "1m"],
  [185_000, "3m5s"],
  [3_600_000 * 49 + 60_000, "2d1h"],
  [-5_000, "0s"],
])("%d ms are %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test("a duration that is shown can be given", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 99 * 86_400 }), (seconds) => {
      const shownMs = parseDuration(formatDuration(seconds * 1_000)) ?? Number.NaN;
      // Only the two largest units are shown.
      expect(seconds * 1_000 - shownMs).toBeGreaterThanOrEqual(0);
      expect(seconds * 1_000 - shownMs).toBeLessThan(3_600_000);
    }),
  );
});

test.each([
  ["90", 90_000],
  ["90s", 90_000],
  ["1h30m", 5_400_000],
  ["2d", 172_800_000],
  ["", undefined],
  ["5 m", undefined],
  ["m", undefined],
  ["-5s", undefined],
  ["30m1h", undefined],
])("the duration %j is %s ms", (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});

test.each([
  ["2048", "m", 2_048],
  ["512M", "m", 512],
  ["2G", "m", 2_048],
  ["2GiB", "m", 2_048],
  ["20", "g", 20_480],
  ["1t", "g", 1_048_576],
  ["1.5G", "m", undefined],
  ["G", "m", undefined],
] as const)("the size %j (%s) is %s MB", (text, plainUnit, mb) => {
  expect(parseSizeMb(text, plainUnit)).toBe(mb);
});

test("sizes, pairs", () => {
  expect([512, 1_024, 1_536, 65_536].map(formatMb)).toEqual(["512 MB", "1 GB", "1.5 GB", "64 GB"]);
  expect(["a=b", "a=b=c", "a=", "=b", "a"].map(parsePair)).toEqual([
    ["a", "b"],
    ["a", "b=c"],
    ["a", ""],
    undefined,
    undefined,
  ]);
});

test("a name cannot command the terminal, nor turn its text around", () => {
  expect(harmless("a\u001b[2Jb\u009b31m\u202ec\rd\ne\tf")).toBe("a\ufffd[2Jb\ufffd31m\ufffdc\ufffdd\ne\tf");
  expect(harmless("Jörg 猫 👩‍💻")).toBe("Jörg 猫 👩‍💻");
});

test.each([
  [0, "0 B"],
  [900, "900 B"],
  [3_300, "3.2 KB"],
  [2 ** 20, "1.0 MB"],
  [7 * 2 ** 40, "7.0 TB"],
  [5 * 2 ** 50, "5120.0 TB"],
])("%d bytes are %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("one is not several", () => {
  expect([countOf(1, "core"), countOf(2, "core"), countOf(1, "address", "addresses")]).toEqual([
    "1 core",
    "2 cores",
    "1 address",
  ]);
});
