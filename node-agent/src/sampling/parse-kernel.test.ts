import fc from "fast-check";
import { expect, test } from "vitest";
import {
  isInit,
  parseContainerInterfaces,
  parseCounter,
  parseCpuCount,
  parseDeviceIo,
  parseFirstPid,
  parseFlatKey,
  parseUptimeMs,
  vmidOfInterface,
} from "./parse-kernel.ts";

/** Counters of the kernel are unsigned 64-bit numbers; those beyond 2^53 are the ones to lose. */
const counter = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: 2n ** 53n - 2n, max: 2n ** 53n + 2n }),
);
const key = fc.stringMatching(/^[a-z_]{1,12}$/u);

test("a counter is read to its last digit", () => {
  fc.assert(
    fc.property(counter, (value) => {
      expect(parseCounter(`${value}\n`)).toBe(value);
    }),
  );
});

test.each(["", "max\n", "-1\n", "1.5\n", "12 13\n", "0x10\n", "1e9\n"])("%j is no counter", (text) => {
  expect(parseCounter(text)).toBeUndefined();
});

test("a flat-keyed file gives each of its keys, and only whole keys", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(key, counter), { selector: ([name]) => name }), (rows) => {
      const text = rows.map(([name, value]) => `${name} ${value}\n`).join("");
      for (const [name, value] of rows) expect(parseFlatKey(text, name)).toBe(value);
      const absent = `${rows.map(([name]) => name).join("")}x`;
      expect(parseFlatKey(text, absent)).toBeUndefined();
    }),
  );
});

test("only the root's device is read from io.stat, though every layer repeats the bytes", () => {
  const device = fc.tuple(fc.nat(511), fc.nat(300)).map(([major, minor]) => `${major}:${minor}`);
  const row = fc.tuple(device, counter, counter);
  fc.assert(
    fc.property(fc.uniqueArray(row, { selector: ([name]) => name, minLength: 1 }), (rows) => {
      const text = rows
        .map(([name, read, written]) => `${name} rbytes=${read} wbytes=${written} rios=3 wios=4 dbytes=0 dios=0\n`)
        .join("");
      for (const [name, readBytes, writeBytes] of rows) {
        expect(parseDeviceIo(text, name)).toEqual({ readBytes, writeBytes });
      }
      expect(parseDeviceIo(text, "999:1")).toEqual({ readBytes: 0n, writeBytes: 0n });
    }),
  );
});

test("a device's line without byte counts is not taken for idleness", () => {
  expect(parseDeviceIo("254:5 rios=1\n", "254:5")).toBeUndefined();
});

test("containers' interfaces are found among all others, with both directions apart", () => {
  const row = fc.tuple(fc.integer({ min: 100, max: 999_999 }), fc.nat(9), counter, counter);
  const unique = fc.uniqueArray(row, { selector: ([vmid, index]) => `${vmid}.${index}` });
  fc.assert(
    fc.property(unique, (rows) => {
      const line = (name: string, received: bigint, sent: bigint): string =>
        `${name.padStart(6)}: ${received} 10 0 0 0 0 0 0 ${sent} 20 0 0 0 0 0 0`;
      const text = [
        "Inter-|   Receive                            |  Transmit",
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes packets",
        line("lo", 1n, 1n),
        line("veth12", 1n, 1n),
        line("fwpr100p0", 1n, 1n),
        ...rows.map(([vmid, index, received, sent]) => line(`veth${vmid}i${index}`, received, sent)),
        line("vmbr0", 1n, 1n),
        "",
      ].join("\n");
      const expected = rows.map(([vmid, index, receivedBytes, sentBytes]) => [
        `veth${vmid}i${index}`,
        { receivedBytes, sentBytes },
      ]);
      expect([...parseContainerInterfaces(text)]).toEqual(expected);
    }),
  );
});

test("an interface's name tells its container", () => {
  expect(vmidOfInterface("veth100012i3")).toBe(100_012);
});

test("the first process is known by its innermost pid", () => {
  expect(isInit("Name:\tsystemd\nNSpid:\t1207\t1\nVmRSS: 1 kB\n")).toBe(true);
  expect(isInit("Name:\tsh\nNSpid:\t1207\t17\n")).toBe(false);
  expect(isInit("Name:\tsh\nNSpid:\t11\n")).toBe(false);
});

test("the other small files", () => {
  expect(parseUptimeMs("4711.25 9000.01\n")).toBe(4_711_250);
  expect(parseUptimeMs("soon\n")).toBeUndefined();
  expect(parseFirstPid("1207\n1300\n")).toBe(1207);
  expect(parseFirstPid("")).toBeUndefined();
  expect(parseCpuCount("cpu  1 2 3\ncpu0 1 2\ncpu1 1 2\nintr 5\n")).toBe(2);
});
