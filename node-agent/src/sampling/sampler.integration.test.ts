import { rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import {
  BUSY,
  type MeteredHost,
  SILENT,
  createMeteredHost,
  metered,
  samplesOf,
} from "../../../test/support/metered-host.ts";
import { type FilesystemProbe, createFilesystemProbe } from "./filesystem-probe.ts";

const VMID = 100_001;
const KINDS = ["cpuUsec", "netInBytes", "netOutBytes", "ioReadBytes", "ioWriteBytes"] as const;
let agent: MeteredHost;

afterEach(() => agent.dispose());

/** What the pod's guest really used, of what is metered. */
async function truth(vmid = VMID): Promise<Record<string, bigint>> {
  const all = await agent.host.truth(vmid);
  return Object.fromEntries(KINDS.map((kind) => [kind, all[kind]]));
}

/** Lets a guest work for some time and rest; afterwards its counters show all that it used. */
async function work(vmid = VMID): Promise<void> {
  await agent.host.setLoad(vmid, BUSY);
  await sleep(30);
  await agent.host.setLoad(vmid, SILENT);
}

async function restart(vmid = VMID): Promise<void> {
  await agent.pct("stop", String(vmid));
  await agent.pct("start", String(vmid));
}

test("samples sum to the truth over starts, stops and restarts inside one interval", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await work();
  await agent.sampler.tick();
  await work();
  for (let round = 0; round < 3; round += 1) {
    await agent.sampler.sampleFinal(VMID);
    await restart();
    await work();
  }
  await agent.sampler.tick();
  await work();
  await agent.sampler.sampleFinal(VMID);
  await agent.pct("stop", String(VMID));
  await agent.sampler.tick();

  const batches = agent.collect();
  const used = await truth();
  expect(used["cpuUsec"]).toBeGreaterThan(0n);
  expect(metered(batches, podId)).toEqual(used);
  const samples = samplesOf(batches, podId);
  expect(new Set(samples.map(({ incarnation }) => incarnation)).size).toBe(4);
  samples.reduce((lastEndMs, { startMs, endMs, runningMs }) => {
    expect(startMs).toBeGreaterThanOrEqual(lastEndMs);
    expect(runningMs).toBe(endMs - startMs);
    return endMs;
  }, 0n);
}, 60_000);

test("without the final reading the end of a run is missing: it is what makes the sums exact", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await work();
  await agent.sampler.tick();
  await work();
  await restart();
  await work();
  await agent.sampler.tick();
  const sums = metered(agent.collect(), podId);
  const used = await truth();
  for (const kind of KINDS) expect(sums[kind]).toBeLessThan(used[kind] ?? 0n);
}, 60_000);

test("a guest that ends by itself loses its last interval and nothing is counted twice", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await work();
  await agent.sampler.tick();
  const known = await truth();
  await work();
  await agent.host.crash(VMID);
  await agent.sampler.tick();
  const batches = agent.collect();
  expect(metered(batches, podId)).toEqual(known);
  expect(batches.at(-1)).toMatchObject({ samples: [], unreadableVmids: [] });
}, 60_000);

test("an agent that dies loses nothing, however long it is away", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await work();
  await agent.sampler.tick();
  await work();
  const first = agent.collect();
  agent = agent.restartAgent();
  await work();
  await agent.sampler.tick();
  const batches = [...first, ...agent.collect()];
  expect(metered(batches, podId)).toEqual(await truth());
  const covers = batches.filter(({ coversFromMs, coversToMs }) => coversFromMs < coversToMs);
  covers.reduce((coveredToMs, { coversFromMs, coversToMs }) => {
    expect(coversFromMs).toBe(coveredToMs);
    return coversToMs;
  }, covers[0]?.coversFromMs ?? 0n);
}, 60_000);

test("the time between two ticks is covered at any interval, but not a long absence", async () => {
  let passedMs = 0;
  agent = await createMeteredHost({ monotonicMs: () => performance.now() + passedMs });
  const coveredMs = async (pauseMs: number): Promise<number> => {
    passedMs += pauseMs;
    await agent.sampler.tick();
    return agent.collect().reduce((sum, batch) => sum + Number(batch.coversToMs - batch.coversFromMs), 0);
  };
  const hourMs = 3_600_000;
  await coveredMs(0);
  expect(await coveredMs(hourMs)).toBe(0);
  agent.sampler.setIntervalMs(hourMs);
  expect(await coveredMs(hourMs)).toBeGreaterThanOrEqual(hourMs);
  expect(await coveredMs(3 * hourMs)).toBe(0);
}, 60_000);

test("what the host sends to a guest is what the guest receives", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  const gigabyte = 2n ** 30n;
  await agent.host.setLoad(VMID, { ...SILENT, netInBps: 20 * 2 ** 30 });
  for (;;) {
    const { netInBytes } = await agent.host.truth(VMID);
    if (netInBytes >= gigabyte) break;
    await sleep(5);
  }
  await agent.host.setLoad(VMID, SILENT);
  await agent.sampler.tick();
  const sums = metered(agent.collect(), podId);
  expect(sums["netInBytes"]).toBeGreaterThanOrEqual(gigabyte);
  expect(sums["netInBytes"]).toBe((await truth())["netInBytes"]);
  expect(sums["netOutBytes"]).toBe(0n);
}, 60_000);

test("counters beyond 2^53 stay exact to the last byte", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  for (let round = 0; round < 3; round += 1) {
    await agent.host.setLoad(VMID, { ...SILENT, netOutBps: 2 ** 58, ioWriteBps: 2 ** 57 });
    await sleep(30);
    await agent.host.setLoad(VMID, SILENT);
    await agent.sampler.tick();
  }
  const used = await truth();
  expect(used["netOutBytes"]).toBeGreaterThan(2n ** 53n);
  expect(metered(agent.collect(), podId)).toEqual(used);
}, 60_000);

test("a new network interface starts at zero while the run goes on", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await work();
  await agent.sampler.sampleFinal(VMID);
  const net0 = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:77,ip=dhcp,type=veth";
  await agent.pct("set", String(VMID), "--net0", net0);
  await work();
  await agent.sampler.tick();
  const batches = agent.collect();
  expect(metered(batches, podId)).toEqual(await truth());
  const runs = samplesOf(batches, podId).map(({ incarnation }) => incarnation.split("-"));
  expect(new Set(runs.map(([boot, start]) => `${boot}-${start}`)).size).toBe(1);
  expect(new Set(runs.map(([, , interfaces]) => interfaces)).size).toBe(2);
}, 60_000);

test("a boot of the host begins new runs, and none of the former ones is counted again", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.pct("set", String(VMID), "--onboot", "1");
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await work();
  await agent.sampler.tick();
  const first = agent.collect();
  await agent.host.reboot();
  await work();
  agent = agent.restartAgent();
  await agent.sampler.tick();
  const batches = [...first, ...agent.collect()];
  expect(metered(batches, podId)).toEqual(await truth());
  expect(new Set(batches.map(({ bootId }) => bootId)).size).toBe(2);
}, 60_000);

test("a hung root file system makes its container unreadable, stalls no other, and loses nothing", async () => {
  const other = VMID + 1;
  const hung = new Set<string>();
  const real = createFilesystemProbe();
  const probe: FilesystemProbe = {
    device: (group, path, deadlineMs) => real.device(group, path, deadlineMs),
    size: (group, path, deadlineMs) =>
      hung.has(path) ? Promise.resolve({ kind: "unresponsive" }) : real.size(group, path, deadlineMs),
  };
  agent = await createMeteredHost({ probe });
  const podIds = [await agent.makePod(VMID), await agent.makePod(other)];
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await agent.pct("start", String(other));
  await agent.sampler.tick();
  const views = await agent.host.containers();
  const initPid = views.find(({ vmid }) => vmid === VMID)?.initPid;
  hung.add(join(agent.host.paths.procRoot, String(initPid), "root"));
  await Promise.all([work(), work(other)]);
  await agent.sampler.tick();
  const during = agent.collect();
  expect(during.at(-1)).toMatchObject({ unreadableVmids: [VMID], samples: [{ vmid: other }] });
  expect(agent.sampler.runningContainers()).toBe(2);
  // A last reading does not wait for what hangs: it takes the last known figure of the disk.
  await agent.sampler.sampleFinal(VMID);
  await agent.pct("stop", String(VMID));
  await agent.sampler.tick();
  const batches = [...during, ...agent.collect()];
  for (const [index, vmid] of [VMID, other].entries()) {
    expect(metered(batches, podIds[index] ?? "")).toEqual(await truth(vmid));
  }
}, 60_000);

test("while the cluster file system is away, running containers go on being metered", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await agent.sampler.tick();
  await work();
  rmSync(join(agent.host.paths.pveRoot, "lxc"));
  await agent.sampler.tick();
  expect(metered(agent.collect(), podId)).toEqual(await truth());
}, 60_000);

test("memory without the page cache and the disk are held over the interval", async () => {
  agent = await createMeteredHost();
  const podId = await agent.makePod(VMID);
  await agent.sampler.tick();
  await agent.pct("start", String(VMID));
  await agent.host.setLoad(VMID, { ...SILENT, memoryMb: 100 });
  await agent.sampler.tick();
  const [sample] = samplesOf(agent.collect(), podId);
  expect(sample).toMatchObject({ memoryMaxBytes: 100n * 2n ** 20n, cores: 1, memoryMb: 512 });
  expect(sample?.memoryByteMs).toBe(100n * 2n ** 20n * (sample?.runningMs ?? 0n));
  expect(sample?.diskMaxBytes).toBeGreaterThan(0n);
}, 60_000);
