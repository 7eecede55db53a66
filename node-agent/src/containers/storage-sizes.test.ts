import { expect, test } from "vitest";
import { parseStorageConfig } from "../pct/parse-pct-cluster.ts";
import type { StorageStatus } from "../pct/parse-pct-output.ts";
import type { SizeAnswer } from "../sampling/filesystem-probe.ts";
import { createStorageSizes } from "./storage-sizes.ts";

const minuteMs = 60_000;
const local: StorageStatus = { storage: "local", available: true, totalKib: 100n, usedKib: 10n };
const thin: StorageStatus = { storage: "thin", available: true, totalKib: 900n, usedKib: 90n };
const storages = parseStorageConfig("dir: local\n\tpath /var/lib/vz\n\nlvmthin: thin\n\tvgname pve\n");

function sizeOf(totalKib: bigint, freeKib: bigint): SizeAnswer {
  const [totalBytes, freeBytes] = [totalKib * 1024n, freeKib * 1024n];
  return { kind: "answered", totalBytes, freeBytes, availableBytes: freeBytes };
}

function scenario() {
  const state = {
    nowMs: 0,
    asked: 0,
    answer: [local, thin] as readonly StorageStatus[] | undefined,
    size: sizeOf(100n, 90n),
    measured: [] as string[],
  };
  const sizes = createStorageSizes({
    ask: async () => {
      state.asked += 1;
      return await Promise.resolve(state.answer);
    },
    probe: {
      size: async (group, path) => {
        state.measured.push(`${group} ${path}`);
        return await Promise.resolve(state.size);
      },
    },
    nowMs: () => state.nowMs,
  });
  return { state, read: (age: "recent" | "known") => sizes.read(age, storages), changed: () => sizes.changed() };
}

test("while nothing happens nothing is asked, for any length of time", async () => {
  const { state, read } = scenario();
  await read("recent");
  for (let minute = 0; minute < 7 * 24 * 60; minute += 1, state.nowMs += minuteMs) await read("known");
  expect(state.asked).toBe(1);
});

test("whoever asks gets sizes of the last minute", async () => {
  const { state, read } = scenario();
  await Promise.all([read("recent"), read("recent")]);
  state.nowMs = minuteMs;
  await read("recent");
  expect(state.asked).toBe(1);
  state.nowMs = minuteMs + 1;
  await read("recent");
  expect(state.asked).toBe(2);
});

test("after work on disks the next reading asks once, not sooner than after a minute", async () => {
  const { state, read, changed } = scenario();
  await read("recent");
  changed();
  await read("known");
  expect(state.asked).toBe(1);
  for (let minute = 0; minute < 10; minute += 1, state.nowMs += minuteMs + 1) await read("known");
  expect(state.asked).toBe(2);
});

const failures: [string, readonly StorageStatus[] | undefined, readonly StorageStatus[]][] = [
  ["program that fails", undefined, []],
  ["storage that is away", [local, { ...thin, available: false }], [local, { ...thin, available: false }]],
];
test.each(failures)(
  "for a %s it is asked again after a minute, then two, then four, at last once an hour",
  async (_, answer, seen) => {
    const { state, read } = scenario();
    state.answer = answer;
    const askedAtMinute: number[] = [];
    for (let minute = 0; minute < 300; minute += 1, state.nowMs += minuteMs + 1) {
      const before = state.asked;
      expect(await read("known")).toEqual(seen);
      if (state.asked > before) askedAtMinute.push(minute);
    }
    expect(askedAtMinute).toEqual([0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    state.answer = [local, thin];
    expect(await read("recent")).toEqual([local, thin]);
    for (let hour = 0; hour < 24; hour += 1, state.nowMs += 60 * minuteMs) await read("known");
    expect(state.asked).toBe(askedAtMinute.length + 1);
  },
);

test("a directory is measured anew at each reading, by a call and not by a program", async () => {
  const { state, read } = scenario();
  expect(await read("known")).toEqual([local, thin]);
  state.size = sizeOf(100n, 25n);
  expect(await read("known")).toEqual([{ ...local, usedKib: 75n }, thin]);
  expect(state.measured).toEqual(["storage local /var/lib/vz", "storage local /var/lib/vz"]);
  expect(state.asked).toBe(1);
});

const otherwise: [string, SizeAnswer, StorageStatus][] = [
  ["does not answer counts as away", { kind: "unresponsive" }, { ...local, available: false }],
  ["is another file system now keeps what Proxmox told", sizeOf(7n, 1n), local],
  ["is gone keeps what Proxmox told", { kind: "failed", code: "ENOENT" }, local],
];
test.each(otherwise)("a directory that %s", async (_, size, expected) => {
  const { state, read } = scenario();
  state.size = size;
  expect(await read("known")).toEqual([expected, thin]);
});
