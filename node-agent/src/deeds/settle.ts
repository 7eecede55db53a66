import { setTimeout as pause } from "node:timers/promises";
import { asFailure } from "../containers/container-failure.ts";
import type { PodContainer } from "../containers/containers.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { beginExecution } from "../containers/execution.ts";
import type { Execution } from "../containers/execution.ts";
import { parseMarker } from "../containers/marker.ts";
import { lockOf } from "../containers/observed-container.ts";
import { step } from "../containers/plan-step.ts";
import { pctStart, pctUnlock } from "../pct/pct-arguments.ts";
import { takeStep } from "./deed.ts";

/** What a program that has ended may have left of a container. */
export interface Leftovers {
  /** Locks that it sets and takes away. */
  readonly locks: ReadonlySet<string>;
  /** The container ran before and shall run again. */
  readonly shallRun: boolean;
}

/** How long the clearing up may take after the deed itself was cancelled or out of time. */
const SETTLE_MS = 360_000;
/** How long to look whether a lock stays without a holder. */
const LOCK_MS = 30_000;
const LOOK_MS = 250;

/**
 * Puts a container of the pod right that is still on this host after a program that died: takes its lock away
 * once that has no living holder, and starts what ran before. Never throws: a lock that stays is broken by the
 * next deed or wish.
 */
export async function settle(
  pod: Pick<PodContainer, "podId" | "vmid">,
  left: Leftovers,
  former: Execution,
  doors: ConvergeDoors,
): Promise<void> {
  const { signal } = new AbortController();
  const bounds = { commandId: former.commandId, signal, deadlineMs: SETTLE_MS };
  const execution = beginExecution(doors.paths, doors.runner, bounds);
  try {
    await settleNow(pod, left, execution, doors);
  } catch (error) {
    const { code, message } = asFailure(error);
    doors.log.error({ vmid: pod.vmid, code, reason: message }, "what a program left could not be put right");
  } finally {
    execution.close();
  }
}

async function settleNow(
  { vmid, podId }: Pick<PodContainer, "podId" | "vmid">,
  { locks, shallRun }: Leftovers,
  execution: Execution,
  doors: ConvergeDoors,
): Promise<void> {
  const until = performance.now() + LOCK_MS;
  for (;;) {
    const observed = await doors.view.observe(vmid);
    if (observed.where !== "here" || parseMarker(observed.config.description)?.podId !== podId) return;
    const lock = lockOf(observed.config);
    if (lock === "") {
      if (shallRun && !observed.running) await takeStep(step("start", pctStart(vmid)), vmid, execution, doors);
      return;
    }
    if (!locks.has(lock) || performance.now() >= until) return;
    if (observed.lockIsStale) await takeStep(step("unlock", pctUnlock(vmid)), vmid, execution, doors);
    else await pause(LOOK_MS);
  }
}
