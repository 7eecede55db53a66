import { Command, CommandOutcome, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { pino } from "pino";
import { expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import type { Containers } from "../containers/containers.ts";
import { createHostWithoutContainers } from "../host-without-containers.ts";
import type { Journal } from "../journal/journal.ts";
import { openJournalFile } from "../journal/open-journal.ts";
import { createJournal } from "../journal/sqlite-journal.ts";
import { type CommandQueue, createCommandQueue } from "./command-queue.ts";
import { createCommandRunner } from "./command-runner.ts";
import type { AgentMessage } from "./command-schedule.ts";
import { capabilitiesOf } from "./operations.ts";

const idOf = (index: number): string => `0190a0a0-0000-7000-8000-${String(index).padStart(12, "0")}`;

/** A runner over a journal in memory, whose methods a test may make fail. */
function scene(
  change: (journal: Journal) => Partial<Journal> = () => ({}),
  queue: CommandQueue = createCommandQueue({ maxParallel: 4, maxWaiting: 1_000 }),
  containers: Partial<Containers> = {},
) {
  const sent: AgentMessage[] = [];
  const memory = createJournal(openJournalFile(":memory:").database);
  const journal: Journal = { ...memory, ...change(memory) };
  const runner = createCommandRunner({
    containers: { ...createHostWithoutContainers(() => 0), observe: () => Promise.resolve(undefined), ...containers },
    journal,
    queue,
    capabilities: capabilitiesOf(true),
    sampleFinal: () => Promise.resolve(),
    renewCertificate: () => Promise.resolve(),
    nowMs: () => 1_000,
    clock: { bootId: "boot", monotonicMs: () => 0 },
    send: (message) => void sent.push(message),
    log: pino({ level: "silent" }),
  });
  const results = (commandId: string) =>
    sent.flatMap((message) =>
      message.$case === "result" && message.value.commandId === commandId ? [message.value] : [],
    );
  return { runner, journal, sent, results };
}

const start = (index: number): Command =>
  Command.fromPartial({
    commandId: idOf(index),
    podId: idOf(900_000 + index),
    vmid: 100_000 + index,
    fleetEpoch: 1n,
    generation: 1n,
    revision: 1n,
    op: { $case: "ensurePower", value: { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 1 } },
  });

const backup = (index: number): Command => ({
  ...start(index),
  commandId: idOf(index + 500),
  op: { $case: "backup", value: { backupId: idOf(index), storage: "local", mode: "stop" } },
});

test("commands are only journalled until the runner is opened, then run in order", async () => {
  const { runner, sent, results } = scene();
  await runner.receive(start(1));
  expect(sent.map(({ $case }) => $case)).toEqual(["accepted"]);
  expect(runner.unfinishedIds()).toEqual([idOf(1)]);
  runner.open();
  const result = await until("the result", () => results(idOf(1))[0]);
  expect(result.error?.code).toBe("HOST_UNKNOWN");
  expect(runner.unfinishedIds()).toEqual([]);
});

test("a command that cannot be journalled is answered so, changes nothing and may come again", async () => {
  let isFull = true;
  const { runner, journal, results } = scene((memory) => ({
    accept(command, fence) {
      if (isFull) throw new Error("database or disk is full");
      memory.accept(command, fence);
    },
  }));
  runner.open();
  await runner.receive(start(1));
  expect(results(idOf(1))[0]?.error).toMatchObject({ code: "JOURNAL_UNWRITABLE", retryable: true });
  expect(journal.findFence(start(1).podId)).toBeUndefined();
  isFull = false;
  await runner.receive(start(1));
  await until("the second answer", () => results(idOf(1))[1]);
});

test("a result that cannot be recorded is kept until it can, and the command is not run again", async () => {
  let failures = 2;
  let runs = 0;
  const { runner, results } = scene((memory) => ({
    start(commandId, startedAtMs) {
      runs += 1;
      memory.start(commandId, startedAtMs);
    },
    finish(commandId, result, finishedAtMs) {
      failures -= 1;
      if (failures >= 0) throw new Error("database or disk is full");
      memory.finish(commandId, result, finishedAtMs);
    },
  }));
  runner.open();
  await runner.receive(start(1));
  await until("the result", () => results(idOf(1))[0]);
  expect(runs).toBe(1);
});

test("a host with too much to do says so and takes nothing on", async () => {
  const queue = { offer: () => true, size: () => 500, close: () => undefined };
  const { runner, results } = scene(undefined, queue);
  await runner.receive(start(1));
  expect(results(idOf(1))[0]?.error).toMatchObject({ code: "NODE_BUSY", retryable: true });
  expect(runner.unfinishedIds()).toEqual([]);
});

test("a command without a proper id is not answered, as nobody could tell what was meant", async () => {
  const { runner, sent } = scene();
  await runner.receive({ ...start(1), commandId: "not an id" });
  expect(sent).toEqual([]);
});

test("unfinished commands of pods that are placed elsewhere are answered, not run", async () => {
  const { runner, results } = scene();
  await runner.receive(start(1));
  await runner.receive(start(2));
  runner.abandon((podId) => podId === start(2).podId);
  expect(results(idOf(1))[0]?.outcome).toBe(CommandOutcome.COMMAND_OUTCOME_STALE_GENERATION);
  expect(runner.unfinishedIds()).toEqual([idOf(2)]);
});

test("what is cancelled before its turn has come is answered at once, and its turn changes nothing", async () => {
  const order: string[] = [];
  const first = Promise.withResolvers<void>();
  const { runner, results } = scene(undefined, undefined, {
    backUp: async ({ vmid }) => {
      order.push(`backup ${vmid}`);
      if (vmid === 100_001) await first.promise;
      return { observation: undefined, commandLines: [] };
    },
  });
  const cancel = (index: number, commandId: string): Command => ({
    ...start(index),
    commandId: idOf(index),
    op: { $case: "cancelCommand", value: { commandId } },
  });
  runner.open();
  for (const command of [backup(1), backup(2), backup(3), cancel(700, idOf(502))]) await runner.receive(command);
  const cancelled = await until("the cancelled one", () => results(idOf(502))[0]);
  expect(cancelled).toMatchObject({
    outcome: CommandOutcome.COMMAND_OUTCOME_CANCELLED,
    error: { code: "CANCELLED", retryable: false },
  });
  await until("the cancellation", () => results(idOf(700))[0]);
  expect([results(idOf(501)), order]).toEqual([[], ["backup 100001"]]);
  first.resolve();
  await until("the third backup", () => results(idOf(503))[0]);
  expect(order).toEqual(["backup 100001", "backup 100003"]);
  expect(results(idOf(502))).toHaveLength(1);
});

test("a backup that takes long keeps only other backups waiting, and what it backs up", async () => {
  const order: string[] = [];
  const first = Promise.withResolvers<void>();
  const { runner, results } = scene(() => ({}), createCommandQueue({ maxParallel: 1, maxWaiting: 1_000 }), {
    backUp: async ({ vmid }) => {
      order.push(`backup ${vmid}`);
      if (vmid === 100_001) await first.promise;
      return { observation: undefined, commandLines: [] };
    },
    converge: ({ vmid }) => {
      order.push(`start ${vmid}`);
      return Promise.resolve({ observation: undefined, commandLines: [] });
    },
  });
  runner.open();
  for (const command of [backup(1), backup(2), start(3)]) await runner.receive(command);
  await until("the start", () => results(idOf(3))[0]);
  expect(order).toEqual(["backup 100001", "start 100003"]);
  first.resolve();
  await until("the second backup", () => results(idOf(502))[0]);
  expect(order).toEqual(["backup 100001", "start 100003", "backup 100002"]);
});
