import { Command, CommandOutcome, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { describe, expect, test } from "vitest";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { Containers } from "../containers/containers.ts";
import type { Fence } from "../journal/journal.ts";
import { openJournalFile } from "../journal/open-journal.ts";
import { createJournal } from "../journal/sqlite-journal.ts";
import { type RunDoors, runJournalled } from "./run-journalled.ts";

const podId = "0190a0a0-0000-7000-8000-000000000001";
const commandId = "0190a0a0-0000-7000-8000-000000000002";
const outcomes = CommandOutcome;

/** A journal in memory and containers that note what is asked of them. */
function scene(recovered: { ran: boolean } = { ran: false }, converge?: Containers["converge"], bootId = "boot-1") {
  const calls: string[] = [];
  const note = (name: string) => async () => {
    calls.push(name);
    return { observation: undefined, commandLines: [] };
  };
  const converging = converge ?? note("converge");
  const refuse = () => Promise.reject(new Error("not part of this test"));
  const containers: Containers = {
    observe: refuse,
    inventory: refuse,
    hostCapacity: refuse,
    pveIdentity: refuse,
    planLines: refuse,
    planCommands: refuse,
    stopStrays: refuse,
    awaitAddress: refuse,
    converge: (wish, options) => converging(wish, options),
    reboot: note("reboot"),
    backUp: note("backUp"),
    deleteBackup: note("deleteBackup"),
    verifyBackup: note("verifyBackup"),
    restore: note("restore"),
    checkRestore: refuse,
    migrate: note("migrate"),
    adopt: note("adopt"),
    recover: async () => {
      calls.push("recover");
      return { ...recovered, observation: undefined };
    },
  };
  const journal = createJournal(openJournalFile(":memory:").database);
  const doors: RunDoors = {
    containers,
    journal,
    // The wall clock was set back by hours: ages do not depend on it.
    nowMs: () => 10_000 - 7_200_000,
    clock: { bootId, monotonicMs: () => 10_000 },
    sampleFinal: async () => void calls.push("sampleFinal"),
    renewCertificate: refuse,
    cancel: refuse,
    onProgress: () => undefined,
  };
  const take = (op: NonNullable<Command["op"]>, change: Partial<Command> = {}, fence?: Partial<Fence>): void => {
    const command = Command.fromPartial({
      commandId,
      podId,
      vmid: 100,
      fleetEpoch: 1n,
      generation: 1n,
      revision: 1n,
      op,
      ...change,
    });
    const row = { commandId, operation: "x", podId, vmid: 100, envelope: Command.encode(command).finish() };
    const acceptedIn = { bootId: "boot-1", monotonicMs: 1_000 };
    journal.accept(
      { ...row, acceptedAtMs: 1_000, acceptedIn },
      fence === undefined ? undefined : { ...newest, ...fence },
    );
  };
  const run = async (signal = new AbortController().signal) => (await runJournalled(commandId, signal, doors))?.end;
  return { calls, journal, take, run };
}

const newest: Fence = {
  podId,
  vmid: 100,
  fleetEpoch: 1n,
  generation: 1n,
  revision: 1n,
  present: true,
  spec: undefined,
  power: Power.POWER_UNSPECIFIED,
  shutdownTimeoutSeconds: 0,
};
const reboot = { $case: "reboot", value: { shutdownTimeoutSeconds: 1 } } as const;
const stop = { $case: "ensurePower", value: { power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 1 } } as const;

describe("after the death of the process that ran it", () => {
  test.each([true, false])("a deed that had begun is not done again, trace of its program: %s", async (ran) => {
    const { calls, journal, take, run } = scene({ ran });
    take(reboot);
    journal.start(commandId, 2_000);
    expect(await run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_INTERRUPTED, error: { retryable: true } });
    expect(calls).toEqual(["recover"]);
  });

  test("negative control: without the journal's note of the beginning the deed would be done", async () => {
    const { calls, take, run } = scene({ ran: true });
    take(reboot);
    expect(await run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_SUCCEEDED });
    expect(calls).toEqual(["sampleFinal", "reboot"]);
  });

  test("a wish is wished again once its programs are over, unless a newer one overtook it", async () => {
    const first = scene({ ran: true });
    first.take(stop, {}, { power: Power.POWER_STOPPED });
    first.journal.start(commandId, 2_000);
    expect(await first.run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_SUCCEEDED });
    expect(first.calls).toEqual(["recover", "sampleFinal", "converge"]);

    const second = scene({ ran: true });
    second.take(stop, {}, { revision: 2n, power: Power.POWER_RUNNING });
    second.journal.start(commandId, 2_000);
    expect(await second.run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_SUPERSEDED });
    expect(second.calls).toEqual(["recover"]);
  });
});

test("a deed expires by its age, a wish does not", async () => {
  const deed = scene();
  deed.take(reboot, { ttlMs: 8_999n });
  expect(await deed.run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_EXPIRED });
  expect(deed.calls).toEqual([]);
  const young = scene();
  young.take(reboot, { ttlMs: 9_000n });
  expect(await young.run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_SUCCEEDED });
  const ofOtherBoot = scene({ ran: false }, undefined, "boot-2");
  ofOtherBoot.take(reboot, { ttlMs: 9_000n });
  expect(await ofOtherBoot.run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_EXPIRED });
  expect(ofOtherBoot.calls).toEqual([]);
  const wish = scene();
  wish.take(stop, { ttlMs: 1n }, { power: Power.POWER_STOPPED });
  expect(await wish.run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_SUCCEEDED });
});

test("a container whose interface is made anew is sampled before", async () => {
  const { calls, take, run } = scene({ ran: false }, async (_, options) => {
    await options.beforeNewInterface?.();
    calls.push("the interface goes");
    return { observation: undefined, commandLines: [] };
  });
  take({ $case: "ensureContainer", value: { spec: undefined } });
  expect(await run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_SUCCEEDED });
  expect(calls).toEqual(["sampleFinal", "the interface goes"]);
});

test("a command that was cancelled before its turn does nothing", async () => {
  const { calls, take, run } = scene();
  take(stop);
  expect(await run(AbortSignal.abort())).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_CANCELLED });
  expect(calls).toEqual([]);
});

test("that the VMID was free is remembered until the container is complete", async () => {
  const seen: boolean[] = [];
  const { journal, take, run } = scene({ ran: false }, async (_, options) => {
    seen.push(options.absentBefore);
    await options.recordAbsent();
    if (seen.length === 1) throw new ContainerFailure("STORAGE_FULL", "no space", { retryable: false });
    return { observation: undefined, commandLines: [] };
  });
  take({ $case: "ensureContainer", value: { spec: undefined } });
  expect(await run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_FAILED, error: { code: "STORAGE_FULL" } });
  expect(journal.wasVmidAbsent(podId, 100)).toBe(true);
  expect(await run()).toMatchObject({ outcome: outcomes.COMMAND_OUTCOME_SUCCEEDED });
  expect(seen).toEqual([false, true]);
  expect(journal.wasVmidAbsent(podId, 100)).toBe(false);
});

test("usage is read before a container stops, and not before it starts", async () => {
  const { calls, take, run } = scene();
  take({ $case: "ensurePower", value: { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 1 } });
  await run();
  expect(calls).toEqual(["converge"]);
});
