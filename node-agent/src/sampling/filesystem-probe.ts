import { type BigIntStats, type BigIntStatsFs, stat, statfs } from "node:fs";
import { codeOf } from "../agent-error.ts";
import { type Asked, type PoolGuard, createPoolGuard } from "../pool-guard.ts";

/** What keeps an answer away. */
export type NoAnswer =
  /** The path is not there or must not be read. */
  | { readonly kind: "failed"; readonly code: string }
  /** No answer within the deadline, or none is to be expected. */
  | { readonly kind: "unresponsive" };

/** Size of one file system. */
export type SizeAnswer =
  | {
      readonly kind: "answered";
      readonly totalBytes: bigint;
      /** Free, the part reserved for root included. */
      readonly freeBytes: bigint;
      /** Free for everyone. */
      readonly availableBytes: bigint;
    }
  | NoAnswer;

/** `major:minor` of the device that a path lies on. */
export type DeviceAnswer = { readonly kind: "answered"; readonly device: string } | NoAnswer;

/**
 * Asks file systems; one that hangs costs its own answer and nothing else. A group is what probably
 * dies together, e.g. the Proxmox storage below the path; deadlines count from when the kernel is
 * asked.
 */
export interface FilesystemProbe {
  size(group: string, path: string, deadlineMs: number): Promise<SizeAnswer>;
  device(group: string, path: string, deadlineMs: number): Promise<DeviceAnswer>;
}

/** The two system calls, replaceable by ones that hang. */
export interface FilesystemCalls {
  readonly stat: (path: string, done: (error: Error | null, stats: BigIntStats) => void) => void;
  readonly statfs: (path: string, done: (error: Error | null, size: BigIntStatsFs) => void) => void;
}

/** Makes the one probe of the agent; sampler, heartbeat and inventory share it. */
export function createFilesystemProbe(
  guard: PoolGuard = createPoolGuard(),
  calls: FilesystemCalls = kernelCalls,
): FilesystemProbe {
  return {
    size: async (group, path, deadlineMs) =>
      answerOf(await guard.ask<BigIntStatsFs>(group, path, deadlineMs, (done) => calls.statfs(path, done)), sizeOf),
    device: async (group, path, deadlineMs) =>
      answerOf(await guard.ask<BigIntStats>(group, path, deadlineMs, (done) => calls.stat(path, done)), deviceOf),
  };
}

function answerOf<S, T>(asked: Asked<S>, read: (value: S) => T): T | NoAnswer {
  if (asked.kind === "answered") return read(asked.value);
  return asked.kind === "failed" ? { kind: "failed", code: codeOf(asked.error) ?? "UNKNOWN" } : asked;
}

const kernelCalls: FilesystemCalls = {
  stat: (path, done) => stat(path, { bigint: true }, done),
  statfs: (path, done) => statfs(path, { bigint: true }, done),
};

function sizeOf(size: BigIntStatsFs): SizeAnswer {
  return {
    kind: "answered",
    totalBytes: size.blocks * size.bsize,
    freeBytes: size.bfree * size.bsize,
    availableBytes: size.bavail * size.bsize,
  };
}

/** `major:minor` out of a dev_t, whose bits are packed as gnu_dev_major(3) says. */
function deviceOf({ dev }: BigIntStats): DeviceAnswer {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  return { kind: "answered", device: `${major}:${minor}` };
}
