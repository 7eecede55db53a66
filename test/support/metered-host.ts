import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Sample, SampleAcks, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import {
  type DisciplinedClock,
  createDisciplinedClock,
  readBootId,
} from "../../node-agent/src/clock/disciplined-clock.ts";
import { formatMarker } from "../../node-agent/src/containers/marker.ts";
import { type FilesystemProbe, createFilesystemProbe } from "../../node-agent/src/sampling/filesystem-probe.ts";
import { type Sampler, createSampler } from "../../node-agent/src/sampling/sampler.ts";
import { type Spool, openSpool } from "../../node-agent/src/spool/spool.ts";
import { type GuestLoad, type SimulatedHost, createSimulatedHost } from "../simulated-host/host.ts";

/** A guest that does nothing at all, so that its counters stand still. */
export const SILENT: GuestLoad = {
  cpuFraction: 0,
  memoryMb: 40,
  netInBps: 0,
  netOutBps: 0,
  ioReadBps: 0,
  ioWriteBps: 0,
};

/** A guest that does everything at rates that no rounding can hide. */
export const BUSY: GuestLoad = {
  cpuFraction: 0.7,
  memoryMb: 90,
  netInBps: 3_000_017,
  netOutBps: 1_000_003,
  ioReadBps: 500_009,
  ioWriteBps: 700_001,
};

/** The metering half of an agent on a simulated host. */
export interface MeteredHost {
  readonly host: SimulatedHost;
  readonly clock: DisciplinedClock;
  readonly spool: Spool;
  readonly sampler: Sampler;
  /** Runs the host's `pct`. */
  pct(...argv: string[]): Promise<void>;
  /** Makes a silent container of a pod. */
  makePod(vmid: number): Promise<string>;
  /** Ends this agent without a word and begins another one on the same state. */
  restartAgent(): MeteredHost;
  /** Takes everything that the spool holds, as a control plane that acknowledges at once. */
  collect(): SampleBatch[];
  dispose(): Promise<void>;
}

/** What may be replaced in a metered host. */
export interface MeteredHostOptions {
  readonly probe?: FilesystemProbe;
  /** CLOCK_MONOTONIC in ms. */
  readonly monotonicMs?: () => number;
}

/** Makes a host with a sampler and a spool whose clock has met the control plane. */
export async function createMeteredHost(options: MeteredHostOptions = {}): Promise<MeteredHost> {
  const root = mkdtempSync(join(tmpdir(), "metered-host-"));
  const host = await createSimulatedHost({ root: join(root, "host"), nodeName: "pve1", speed: 0 });
  return openAgent(root, host, options);
}

function openAgent(root: string, host: SimulatedHost, options: MeteredHostOptions): MeteredHost {
  const log = { warn: () => undefined, error: (details: object) => console.error(details) };
  const { monotonicMs } = options;
  const bootId = readBootId(host.paths.procRoot);
  const clock = createDisciplinedClock({ bootId, ...(monotonicMs === undefined ? {} : { monotonicMs }) });
  const nowMs = clock.monotonicMs();
  clock.recordExchange({ sentMonotonicMs: nowMs, receivedMonotonicMs: nowMs, serverTimeMs: Date.now() });
  const spool = openSpool({ path: join(root, "spool.db"), clock, limitBytes: 1e9, log });
  spool.startSession(spool.ackedSeq());
  const sampler = createSampler({
    paths: host.paths,
    clock,
    spool,
    probe: options.probe ?? createFilesystemProbe(),
    intervalMs: 60_000,
    log,
  });
  const pct = async (...argv: string[]): Promise<void> => {
    await promisify(execFile)(host.paths.pct, argv);
  };
  return {
    host,
    clock,
    spool,
    sampler,
    pct,
    async makePod(vmid) {
      const podId = `2b8c6f9e-0000-7000-8000-${String(vmid).padStart(12, "0")}`;
      const marker = formatMarker({ podId, fleetEpoch: 1n, generation: 1n, stage: "ready", keys: "none" });
      await host.setLoad(vmid, SILENT);
      await pct("clone", String(host.templateVmid), String(vmid), "--description", marker);
      return podId;
    },
    restartAgent() {
      spool.close();
      return openAgent(root, host, options);
    },
    collect: () => collect(spool),
    async dispose() {
      await sampler.stop();
      spool.close();
      rmSync(root, { recursive: true, force: true });
    },
  };
}

function collect(spool: Spool): SampleBatch[] {
  const all: SampleBatch[] = [];
  for (;;) {
    const batches = spool.takeOffers().map(({ payload }) => SampleBatch.decode(payload));
    if (batches.length === 0) return all;
    all.push(...batches);
    const ranges = batches.map(({ seqFrom, seqTo }) => ({ from: seqFrom, to: seqTo }));
    spool.acknowledge(SampleAcks.fromPartial({ spoolId: spool.spoolId(), ranges }));
  }
}

/** The sums of a pod's samples under the names of the simulated host's truth. */
export function metered(batches: readonly SampleBatch[], podId: string): Record<string, bigint> {
  const samples = samplesOf(batches, podId);
  const sum = (value: (sample: Sample) => bigint): bigint =>
    samples.reduce((total, sample) => total + value(sample), 0n);
  return {
    cpuUsec: sum(({ cpuUsageUs }) => cpuUsageUs),
    netInBytes: sum(({ guestInBytes }) => guestInBytes),
    netOutBytes: sum(({ guestOutBytes }) => guestOutBytes),
    ioReadBytes: sum(({ ioReadBytes }) => ioReadBytes),
    ioWriteBytes: sum(({ ioWriteBytes }) => ioWriteBytes),
  };
}

/** A pod's samples in their order. */
export function samplesOf(batches: readonly SampleBatch[], podId: string): Sample[] {
  return batches.flatMap(({ samples }) => samples.filter((sample) => sample.podId === podId));
}
