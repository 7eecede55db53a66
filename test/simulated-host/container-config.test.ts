import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeText, emptyConfig, encodeText, formatConfig, parseConfig } from "./container-config.ts";

test("any text survives the encoding of descriptions and stays on one line", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      expect(encodeText(text)).toMatch(/^[\x20-\x7e]*$/u);
      expect(encodeText(text)).not.toContain(":");
      expect(decodeText(encodeText(text))).toBe(text);
    }),
  );
});

test("a file has the description first, then sorted keys, raw lines, pending and snapshots", () => {
  const config = emptyConfig();
  config.keys = { memory: "512", description: "a: b\nc\n", arch: "amd64", parent: "s1" };
  config.lxc = [["lxc.cgroup2.io.max", "254:5 wbps=1"]];
  config.pending = { nameserver: "9.9.9.9" };
  config.pendingDelete = ["features"];
  config.snapshots.set("s1", { keys: { memory: "256", snaptime: "1" }, lxc: [] });
  const text = [
    "#a%3A b",
    "#c",
    "arch: amd64",
    "memory: 512",
    "parent: s1",
    "lxc.cgroup2.io.max: 254:5 wbps=1",
    "",
    "[pve:pending]",
    "delete: features",
    "nameserver: 9.9.9.9",
    "",
    "[s1]",
    "memory: 256",
    "snaptime: 1",
    "",
  ].join("\n");
  expect(formatConfig(config)).toBe(text);
  expect(parseConfig(text)).toEqual(config);
});
