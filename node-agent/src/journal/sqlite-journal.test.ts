import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ContainerSpec, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Fence } from "./journal.ts";
import { openJournalFile } from "./open-journal.ts";
import { createJournal } from "./sqlite-journal.ts";

let directory = "";
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "journal-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

const open = () => createJournal(openJournalFile(join(directory, "journal.db")).database);
const command = {
  commandId: "c1",
  operation: "ensure_power",
  podId: "p1",
  vmid: 100,
  envelope: Uint8Array.of(1),
  acceptedAtMs: 1_000,
  acceptedIn: { bootId: "boot", monotonicMs: 500 },
};
const fence: Fence = {
  podId: "p1",
  vmid: 100,
  fleetEpoch: 9_007_199_254_740_993n,
  generation: 2n,
  revision: 3n,
  present: true,
  spec: ContainerSpec.fromPartial({ hostname: "web" }),
  power: Power.POWER_RUNNING,
  shutdownTimeoutSeconds: 30,
};

test("what was accepted is there after a reopening, whole", () => {
  const before = open();
  before.accept(command, fence);
  before.start("c1", 2_000);
  before.recordVmidAbsent("c1");
  before.close();
  const after = open();
  expect(after.find("c1")).toEqual({ ...command, state: "running", startedAtMs: 2_000, result: undefined });
  expect(after.findFence("p1")).toEqual(fence);
  expect(after.unfinished().map(({ commandId }) => commandId)).toEqual(["c1"]);
  expect(after.wasVmidAbsent("p1", 100)).toBe(true);
  expect(after.wasVmidAbsent("p1", 101)).toBe(false);
  after.forgetVmidAbsent("p1");
  expect(after.wasVmidAbsent("p1", 100)).toBe(false);
  after.close();
});

test("commands are kept in the order in which they came, also when the clock was set back in between", () => {
  const journal = open();
  journal.accept({ ...command, commandId: "first" }, undefined);
  journal.accept({ ...command, commandId: "second", acceptedAtMs: 10 }, undefined);
  expect(journal.unfinished().map(({ commandId }) => commandId)).toEqual(["first", "second"]);
  journal.close();
});

test("a command id is taken once, and its fence does not move when it is not", () => {
  const journal = open();
  journal.accept(command, undefined);
  expect(() => journal.accept(command, fence)).toThrow("UNIQUE");
  expect(journal.findFence("p1")).toBeUndefined();
  journal.close();
});

test("the first result stays and is repeated until it is confirmed, then kept until it is old", () => {
  const journal = open();
  journal.accept(command, undefined);
  journal.finish("c1", Uint8Array.of(7), 3_000);
  journal.finish("c1", Uint8Array.of(8), 4_000);
  expect(journal.unconfirmed(10)).toEqual([{ commandId: "c1", result: Uint8Array.of(7) }]);
  expect(journal.prune(5_000)).toBe(0);
  journal.confirm("c1", 3_500);
  expect(journal.unconfirmed(10)).toEqual([]);
  expect(journal.prune(3_500)).toBe(0);
  expect(journal.prune(3_501)).toBe(1);
  journal.close();
});

test("facts survive, and the fleet epoch never falls", () => {
  const journal = open();
  expect([journal.fleetEpoch(), journal.ownershipBootId()]).toEqual([0n, undefined]);
  journal.raiseFleetEpoch(4n);
  journal.raiseFleetEpoch(3n);
  journal.confirmOwnership("boot");
  journal.close();
  const again = open();
  expect([again.fleetEpoch(), again.ownershipBootId()]).toEqual([4n, "boot"]);
  again.close();
});

test("a damaged file is put aside and a new journal begun", () => {
  writeFileSync(
    join(directory, "journal.db"),
    "this is not a database at all, but long enough for a header. ".repeat(40),
  );
  const { database, damagedFile } = openJournalFile(join(directory, "journal.db"));
  database.close();
  expect(damagedFile).toBeDefined();
  expect(readdirSync(directory)).toContain(damagedFile?.slice(directory.length + 1));
});
