import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { clockSkewMs, conditionsOf, readHeartbeat, readPresence } from "./read-heartbeat.ts";

const receivedAtMs = Date.UTC(2026, 0, 31, 12);
const healthy: Heartbeat = { ...Heartbeat.decode(new Uint8Array()), wallClockMs: BigInt(receivedAtMs) };
const kinds = (changes: Partial<Heartbeat>, skewBeforeMs?: number) =>
  conditionsOf({ nodeId: "", receivedAtMs, heartbeat: { ...healthy, ...changes } }, skewBeforeMs).map(
    ({ kind }) => kind,
  );
const disk = (availableBytes: bigint, changes = {}) => ({
  name: "/",
  totalBytes: 100n,
  availableBytes,
  responsive: true,
  ...changes,
});

describe("readHeartbeat", () => {
  test("reads what was written", () => {
    expect(readHeartbeat(Heartbeat.encode(healthy).finish())).toEqual(healthy);
  });

  test.each([
    { memoryTotalMb: 4_000_000_000 },
    { agentVersion: "x".repeat(201) },
    { agentVersion: "\0" },
    { spoolDepth: -1n },
    { spoolOldestMs: 2n ** 62n },
    { wallClockMs: -1n },
    { disciplinedMs: -1n },
    { spoolId: "mine" },
  ])("does not take %o", (changes) => {
    expect(readHeartbeat(Heartbeat.encode({ ...healthy, ...changes }).finish())).toBeUndefined();
  });

  test("never throws, whatever bytes come", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        readHeartbeat(bytes);
        readPresence(bytes);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("conditionsOf", () => {
  test("a healthy host has none", () => {
    expect(kinds({})).toEqual([]);
  });

  test.each([
    [2_000, []],
    [2_001, ["ClockSkew"]],
    [-2_001, ["ClockSkew"]],
  ])("a clock that is %i ms behind: %j", (behindMs, expected) => {
    const wallClockMs = BigInt(receivedAtMs - behindMs);
    const heartbeat = { ...healthy, wallClockMs };
    expect(clockSkewMs({ heartbeat, receivedAtMs })).toBe(behindMs);
    expect(kinds(heartbeat, behindMs)).toEqual(expected);
    // However late we read what an agent says that has learned our clock.
    const learned = { synchronised: true, disciplinedMs: BigInt(receivedAtMs - 60_000) };
    expect(kinds({ ...learned, wallClockMs: wallClockMs - 60_000n })).toEqual(expected);
  });

  test("a heartbeat that we read late makes no clock slow, unless the one before said the same", () => {
    const late = { wallClockMs: BigInt(receivedAtMs - 9_000) };
    expect(kinds(late)).toEqual([]);
    expect(kinds(late, 300)).toEqual([]);
    expect(kinds(late, 9_000)).toEqual(["ClockSkew"]);
  });

  test.each([
    [5, 0n, []],
    [5, 1n, []],
    [6, 0n, []],
    [6, 1n, ["TelemetryLag"]],
  ])("samples that wait since %i minutes, %i batches: %j", (minutes, spoolDepth, expected) => {
    expect(kinds({ spoolDepth, spoolOldestMs: BigInt(receivedAtMs - minutes * 60_000) })).toEqual(expected);
  });

  test("a full file system or spool is one condition, a silent file system is none", () => {
    expect(kinds({ filesystems: [disk(5n)] })).toEqual([]);
    expect(kinds({ filesystems: [disk(4n)] })).toEqual(["StorageFull"]);
    expect(kinds({ filesystems: [disk(4n)], spoolOverLimit: true })).toEqual(["StorageFull"]);
    expect(kinds({ filesystems: [disk(0n, { responsive: false })] })).toEqual([]);
  });

  test("a damaged spool is one condition that names the files and what is lost", () => {
    const heartbeat = {
      ...healthy,
      spoolDamagedFiles: ["spool.db.corrupt-1\0", "spool.db.corrupt-2"],
      spoolLostBatches: 7n,
    };
    expect(conditionsOf({ nodeId: "", receivedAtMs, heartbeat }, undefined)).toEqual([
      {
        kind: "SpoolDamaged",
        message:
          "The store of samples was damaged: 7 batches could not be read out of spool.db.corrupt-1, spool.db.corrupt-2 in the agent's directory.",
      },
    ]);
  });
});
