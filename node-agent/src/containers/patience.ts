import { setTimeout as pause } from "node:timers/promises";
import { fullJitterMs } from "../backoff.ts";
import type { ContainerFailure, ContainerFailureCode } from "./container-failure.ts";

/** How failures that may pass are waited out. */
export interface PatienceLimits {
  /** First and longest pause between two attempts. */
  readonly baseMs: number;
  readonly capMs: number;
  /** How long the cluster file system or the quorum may be away. */
  readonly clusterMs: number;
  /** How long somebody else's operation may hold a lock. */
  readonly lockMs: number;
}

/** Attempts of a program that failed for a reason that nobody can wait for. */
const MAX_ATTEMPTS = 3;

/** Reasons that pass by themselves: who may be waited for, and how long. */
const WAITS: ReadonlyMap<ContainerFailureCode, "clusterMs" | "lockMs"> = new Map([
  ["NO_QUORUM", "clusterMs"],
  ["PMXCFS_DOWN", "clusterMs"],
  ["HOST_UNKNOWN", "clusterMs"],
  ["LOCKED", "lockMs"],
  ["LOCK_TIMEOUT", "lockMs"],
  ["STORAGE_LOCK_TIMEOUT", "lockMs"],
]);

/** Whether the reason of a failure usually goes away although nobody repairs anything. */
export function passesByItself(code: ContainerFailureCode): boolean {
  return WAITS.has(code);
}

/** Counts failures since something last succeeded. */
export interface Patience {
  /** Something succeeded. */
  refill(): void;
  /** Waits before the next attempt. @throws the failure when it is final or has lasted too long */
  spend(failure: ContainerFailure, signal: AbortSignal): Promise<void>;
}

/** A full patience. */
export function createPatience(limits: PatienceLimits): Patience {
  let attempts = 0;
  let waits = 0;
  let waitingSinceMs: number | undefined;
  const isOver = ({ code, retryable }: ContainerFailure): boolean => {
    if (!retryable) return true;
    const limit = WAITS.get(code);
    if (limit === undefined) return (attempts += 1) >= MAX_ATTEMPTS;
    waitingSinceMs ??= performance.now();
    return performance.now() - waitingSinceMs >= limits[limit];
  };
  return {
    refill: () => {
      attempts = 0;
      waits = 0;
      waitingSinceMs = undefined;
    },
    spend: async (failure, signal) => {
      if (isOver(failure)) throw failure;
      // Half is fixed so that a wait is never nothing, half is random so that waiters do not meet.
      const waitMs = limits.baseMs / 2 + fullJitterMs(waits, Math.random(), limits);
      waits += 1;
      await pause(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    },
  };
}
