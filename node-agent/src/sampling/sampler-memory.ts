import { deserialize, serialize } from "node:v8";
import type { Before, Reading } from "./sample-interval.ts";

/** What the sampler knows about one container. */
export interface KnownContainer extends Before {
  readonly podId: string;
}

/** What the sampler knows between two ticks; stored with each tick, so that an agent's end costs nothing. */
export interface SamplerMemory {
  readonly bootId: string;
  /** Start of the last look at all containers, monotonic ms; undefined before the first in this boot. */
  readonly lookedAtMs: number | undefined;
  /** End of the time that was covered, monotonic ms. */
  readonly coveredToMs: number | undefined;
  /** Only containers that run, or that could not be read since they ran. */
  readonly containers: ReadonlyMap<number, KnownContainer>;
}

/** Changes with the shape of StoredMemory; a memory of another version is not understood. */
const VERSION = 2;

/** Rows instead of objects: without a thousand times the names of the fields it takes half the time. */
interface StoredMemory {
  readonly version: number;
  readonly bootId: string;
  readonly lookedAtMs: number | undefined;
  readonly coveredToMs: number | undefined;
  readonly containers: readonly (readonly [number, string, number, StoredReading | undefined])[];
}

type StoredReading = readonly [
  atMs: number,
  initStartTicks: bigint,
  startedAtMs: number,
  cpuUsageUs: bigint,
  memoryBytes: bigint,
  diskBytes: bigint,
  ioReadBytes: bigint,
  ioWriteBytes: bigint,
  ioDevice: string,
  ...interfaces: (readonly [string, number, bigint, bigint])[],
];

/** For the spool. */
export function encodeMemory(memory: SamplerMemory): Uint8Array {
  const stored: StoredMemory = {
    version: VERSION,
    bootId: memory.bootId,
    lookedAtMs: memory.lookedAtMs,
    coveredToMs: memory.coveredToMs,
    containers: [...memory.containers].map(([vmid, { podId, knownUntilMs, reading }]) => [
      vmid,
      podId,
      knownUntilMs,
      reading === undefined ? undefined : storedReading(reading),
    ]),
  };
  return serialize(stored);
}

function storedReading(reading: Reading): StoredReading {
  return [
    reading.atMs,
    reading.initStartTicks,
    reading.startedAtMs,
    reading.cpuUsageUs,
    reading.memoryBytes,
    reading.diskBytes,
    reading.ioReadBytes,
    reading.ioWriteBytes,
    reading.ioDevice,
    ...reading.interfaces.map(
      ({ name, ifindex, guestInBytes, guestOutBytes }) => [name, ifindex, guestInBytes, guestOutBytes] as const,
    ),
  ];
}

function readingOf(stored: StoredReading): Reading {
  const [atMs, initStartTicks, startedAtMs, cpuUsageUs, memoryBytes, ...rest] = stored;
  const [diskBytes, ioReadBytes, ioWriteBytes, ioDevice, ...interfaces] = rest;
  return {
    atMs,
    initStartTicks,
    startedAtMs,
    cpuUsageUs,
    memoryBytes,
    diskBytes,
    ioReadBytes,
    ioWriteBytes,
    ioDevice,
    interfaces: interfaces.map(([name, ifindex, guestInBytes, guestOutBytes]) => ({
      name,
      ifindex,
      guestInBytes,
      guestOutBytes,
    })),
  };
}

/**
 * Brings a memory back. One of an earlier boot only says that every run of this boot is new; without
 * any memory nothing is known about runs that are under way.
 */
export function decodeMemory(bytes: Uint8Array | undefined, bootId: string): SamplerMemory {
  const nothing = { bootId, coveredToMs: undefined, containers: new Map<number, KnownContainer>() };
  const memory = bytes === undefined ? undefined : storedMemory(bytes);
  if (memory === undefined) return { ...nothing, lookedAtMs: undefined };
  // Monotonic time starts at zero with each boot.
  return memory.bootId === bootId ? memory : { ...nothing, lookedAtMs: 0 };
}

function storedMemory(bytes: Uint8Array): SamplerMemory | undefined {
  try {
    // Written by `encodeMemory`; only of the same version is the rest as declared.
    const stored = deserialize(bytes) as StoredMemory;
    if (stored.version !== VERSION) return undefined;
    const containers = stored.containers.map(([vmid, podId, knownUntilMs, reading]) => {
      const known = { podId, knownUntilMs, reading: reading && readingOf(reading) };
      return [vmid, known] as const;
    });
    const { bootId, lookedAtMs, coveredToMs } = stored;
    return { bootId, lookedAtMs, coveredToMs, containers: new Map(containers) };
  } catch {
    return undefined;
  }
}

/** What is known about a container before it is read. */
export function beforeOf(memory: SamplerMemory, vmid: number, podId: string, nowMs: number): Before {
  const known = memory.containers.get(vmid);
  if (known?.podId === podId) return known;
  // Never read: it did not run at the last look. Without any look it may have run for days.
  return { reading: undefined, knownUntilMs: memory.lookedAtMs ?? nowMs };
}

/** What is known about a container after it was read. */
export function afterReading(podId: string, reading: Reading): KnownContainer {
  return { podId, reading, knownUntilMs: reading.atMs };
}
