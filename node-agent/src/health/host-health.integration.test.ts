import childProcess, { ChildProcess } from "node:child_process";
import { syncBuiltinESMExports } from "node:module";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type MeteredHost, createMeteredHost } from "../../../test/support/metered-host.ts";
import { until } from "../../../test/support/until.ts";
import { type FilesystemCalls, createFilesystemProbe } from "../sampling/filesystem-probe.ts";
import { type HostHealth, createHostHealth } from "./host-health.ts";

let agent: MeteredHost;

beforeEach(async () => {
  agent = await createMeteredHost();
});

afterEach(() => agent.dispose());

function healthOf(probe = createFilesystemProbe()): HostHealth {
  const { clock, host, sampler, spool } = agent;
  return createHostHealth({
    paths: host.paths,
    clock,
    probe,
    spool,
    agentVersion: "1.2.3",
    filesystems: async () => [
      { name: "root", path: "/" },
      { name: "gone", path: "/nowhere/at/all" },
    ],
    certificate: () => ({ serial: "0a1b", notBeforeMs: 1, notAfterMs: 2 }),
    commandsInProgress: () => 3,
    runningContainers: () => sampler.runningContainers(),
  });
}

/** Counts every process that this one starts while `work` runs, by whatever function. */
async function processesStartedBy(work: () => unknown): Promise<number> {
  let count = 0;
  // All asynchronous functions end in this method; the synchronous ones have no common end.
  const prototype: { spawn: (...args: unknown[]) => unknown } = Object(ChildProcess.prototype);
  const exports: Record<string, (...args: unknown[]) => unknown> = Object(childProcess);
  const undo: (() => void)[] = [];
  const count1 = (owner: Record<string, (...args: unknown[]) => unknown>, name: string): void => {
    const original = owner[name];
    if (original === undefined) throw new Error(`there is no ${name}`);
    owner[name] = function counted(this: unknown, ...args) {
      count += 1;
      return original.apply(this, args);
    };
    undo.push(() => {
      owner[name] = original;
    });
  };
  count1(prototype, "spawn");
  for (const name of ["spawnSync", "execSync", "execFileSync"]) count1(exports, name);
  syncBuiltinESMExports();
  try {
    await work();
  } finally {
    for (const step of undo) step();
    syncBuiltinESMExports();
  }
  return count;
}

test("an idle agent samples and beats without starting any process", async () => {
  for (const vmid of [100_001, 100_002]) {
    await agent.makePod(vmid);
    await agent.pct("start", String(vmid));
  }
  const health = healthOf();
  const started = await processesStartedBy(async () => {
    agent.sampler.start();
    agent.sampler.setIntervalMs(50);
    await until("ten ticks", () => agent.spool.status().depth >= 10);
    for (let beat = 0; beat < 5; beat += 1) await health.collectHeartbeat();
  });
  expect(started).toBe(0);
  expect(agent.sampler.runningContainers()).toBe(2);
}, 60_000);

test("the count does see processes, of every kind", async () => {
  const started = await processesStartedBy(async () => {
    childProcess.execSync("true");
    childProcess.execFileSync("true");
    childProcess.spawnSync("true");
    await new Promise((resolve) => childProcess.execFile("true", resolve));
    await new Promise((resolve) => childProcess.exec("true", resolve));
  });
  expect(started).toBe(5);
});

test("a heartbeat tells what the host's own files say", async () => {
  const health = healthOf();
  await health.collectHeartbeat();
  const heartbeat = await health.collectHeartbeat();
  expect(heartbeat).toMatchObject({
    bootId: agent.clock.bootId,
    sequence: 2n,
    synchronised: true,
    spoolDepth: 0n,
    spoolId: agent.spool.spoolId(),
    commandsInProgress: 3,
    agentVersion: "1.2.3",
    certificateSerial: "0a1b",
    certificateNotAfterMs: 2n,
  });
  expect(heartbeat.memoryTotalMb).toBeGreaterThan(heartbeat.memoryAvailableMb);
  expect(heartbeat.cpuBusyBasisPoints).toBeLessThanOrEqual(10_000);
  expect(Math.abs(Number(heartbeat.disciplinedMs - heartbeat.wallClockMs))).toBeLessThan(1000);
  expect(heartbeat.filesystems).toMatchObject([
    { name: "root", responsive: true },
    { name: "gone", responsive: true, totalBytes: 0n },
  ]);
});

test("a dead file system delays one heartbeat by two seconds and the later ones by nothing", async () => {
  const calls: FilesystemCalls = { stat: () => undefined, statfs: () => undefined };
  const health = healthOf(createFilesystemProbe(undefined, calls));
  const beforeMs = performance.now();
  const first = await health.collectHeartbeat();
  expect(first.filesystems.map(({ responsive }) => responsive)).toEqual([false, false]);
  expect(performance.now() - beforeMs).toBeGreaterThan(1900);
  const laterMs: number[] = [];
  for (let beat = 0; beat < 3; beat += 1) {
    const beginsMs = performance.now();
    await health.collectHeartbeat();
    laterMs.push(performance.now() - beginsMs);
  }
  // Whatever else stands still on a busy machine does so now and then.
  expect(Math.min(...laterMs)).toBeLessThan(500);
});
