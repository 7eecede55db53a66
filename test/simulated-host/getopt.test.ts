import { expect, test } from "vitest";
import { parseWords } from "./getopt.ts";
import type { OptionKinds } from "./getopt.ts";

const KINDS: OptionKinds = new Map([
  ["full", "boolean"],
  ["hostname", "string"],
  ["hookscript", "string"],
]);

function parsed(...words: string[]): { options: Record<string, string[]>; rest: string[] } {
  const { options, rest } = parseWords(words, KINDS);
  return { options: Object.fromEntries(options), rest };
}

test("options may stand anywhere, with one dash or two, and attached values", () => {
  expect(parsed("1", "--hostname", "a", "-full", "2")).toEqual({
    options: { hostname: ["a"], full: ["2"] },
    rest: ["1"],
  });
  expect(parsed("--hostname=a=b", "1", "--full")).toEqual({
    options: { hostname: ["a=b"], full: [""] },
    rest: ["1"],
  });
});

test("a string takes any word for its value, a boolean none with a dash", () => {
  expect(parsed("--hostname", "--full")).toEqual({ options: { hostname: ["--full"] }, rest: [] });
  expect(parsed("--full", "--hostname", "a").options).toEqual({ full: [""], hostname: ["a"] });
});

test("names may be cut while they stay unique, in any case", () => {
  expect(parsed("--HOST", "a").options).toEqual({ hostname: ["a"] });
  expect(() => parsed("--ho", "a")).toThrow("Option ho is ambiguous (hookscript, hostname)");
});

test("behind a bare double dash nothing is an option", () => {
  expect(parsed("1", "--", "--full", "-x")).toEqual({ options: {}, rest: ["1", "--full", "-x"] });
});

test("unknown options and missing values are named", () => {
  expect(() => parsed("-rf")).toThrow("Unknown option: rf\n400 unable to parse option");
  expect(() => parsed("--hostname")).toThrow("Option hostname requires an argument");
});
