import { expect, test } from "vitest";
import type { StorageStatus } from "../pct/parse-pct-output.ts";
import { createStorageSizes } from "./storage-sizes.ts";

const minuteMs = 60_000;
const local: StorageStatus = { storage: "local", available: true, totalKib: 1n, usedKib: 0n };

function scenario() {
  const state = { nowMs: 0, asked: 0, answer: [local] as readonly StorageStatus[] | undefined };
  const sizes = createStorageSizes(
    async () => {
      state.asked += 1;
      return await Promise.resolve(state.answer);
    },
    () => state.nowMs,
  );
  return { state, sizes };
}

test("an hour of inventories once a minute asks six times", async () => {
  const { state, sizes } = scenario();
  for (let minute = 0; minute < 60; minute += 1, state.nowMs += minuteMs)
    expect(await sizes.read("known")).toEqual([local]);
  expect(state.asked).toBe(6);
});

test("whoever asks gets sizes of the last minute", async () => {
  const { state, sizes } = scenario();
  await Promise.all([sizes.read("recent"), sizes.read("recent")]);
  state.nowMs = minuteMs;
  await sizes.read("recent");
  expect(state.asked).toBe(1);
  state.nowMs = minuteMs + 1;
  await sizes.read("recent");
  expect(state.asked).toBe(2);
});

test("a failure is forgotten after a minute", async () => {
  const { state, sizes } = scenario();
  state.answer = undefined;
  expect(await sizes.read("known")).toEqual([]);
  state.nowMs = minuteMs;
  expect(await sizes.read("known")).toEqual([]);
  state.answer = [local];
  state.nowMs = minuteMs + 1;
  expect(await sizes.read("known")).toEqual([local]);
  expect(state.asked).toBe(2);
});
