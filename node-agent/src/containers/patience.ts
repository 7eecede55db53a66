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

const CLUSTER_AWAY: ReadonlySet<ContainerFailureCode> = new Set(["NO_QUORUM", "PMXCFS_DOWN", "HOST_UNKNOWN"]);
const HELD: ReadonlySet<ContainerFailureCode> = new Set(["LOCKED", "LOCK_TIMEOUT", "STORAGE_LOCK_TIMEOUT"]);

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
  let sinceMs: number | undefined;
  return {
    refill: () => {
      attempts = 0;
      sinceMs = undefined;
    },
    spend: async (failure, signal) => {
      const nowMs = performance.now();
      sinceMs ??= nowMs;
      attempts += 1;
      const lastedMs = nowMs - sinceMs;
      if (!failure.retryable || !isWorthWaiting(failure.code, attempts, lastedMs, limits)) throw failure;
      // Half is fixed so that a wait is never nothing, half is random so that waiters do not meet.
      const waitMs = limits.baseMs / 2 + fullJitterMs(attempts - 1, Math.random(), limits);
      await pause(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    },
  };
}

function isWorthWaiting(
  code: ContainerFailureCode,
  attempts: number,
  lastedMs: number,
  limits: PatienceLimits,
): boolean {
  if (CLUSTER_AWAY.has(code)) return lastedMs < limits.clusterMs;
  if (HELD.has(code)) return lastedMs < limits.lockMs;
  return attempts < MAX_ATTEMPTS;
}
