import { messageOf } from "../agent-error.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import { asFailure } from "./container-failure.ts";
import type { ContainerWish } from "./container-wish.ts";
import type { ConvergeDoors } from "./doors.ts";
import { beginExecution } from "./execution.ts";
import type { Execution } from "./execution.ts";
import { isNamelessHalf } from "./observed-container.ts";
import type { ObservedContainer } from "./observed-container.ts";
import { createPatience } from "./patience.ts";
import { isLeftover, planContainer } from "./plan-container.ts";
import { planHost } from "./plan-host.ts";
import { attachRunning } from "./recover.ts";
import { runStep } from "./run-step.ts";

/** How long a half-made container may take to be cleared away after its command has failed. */
const CLEAN_UP_MS = 120_000;

/**
 * After a failure: takes a half-made container of ours away. It carries no name, so that nobody
 * could tell later whose it is. Never throws; what it cannot clear now, the records still prove.
 */
export async function clearAway(wish: ContainerWish, commandId: string, doors: ConvergeDoors): Promise<void> {
  const { log, paths, runner, patience: limits } = doors;
  const { signal } = new AbortController();
  const execution = beginExecution(paths, runner, { commandId, signal, deadlineMs: CLEAN_UP_MS });
  const patience = createPatience(limits);
  try {
    for (;;) {
      try {
        if (await isClear(wish, execution, doors)) return;
        patience.refill();
      } catch (error) {
        await patience.spend(asFailure(error), execution.signal);
      }
    }
  } catch (error) {
    log.error({ vmid: wish.vmid, reason: messageOf(error) }, "a half-made container could not be cleared away");
  } finally {
    execution.close();
  }
}

/** True when there is no half-made container; else takes a step against it. */
async function isClear(wish: ContainerWish, execution: Execution, doors: ConvergeDoors): Promise<boolean> {
  const { heavyTurns, paths, runner, view } = doors;
  const { vmid } = wish;
  const observed = await view.observe(vmid);
  if (!isLeftover(wish, observed, true)) return true;
  await attachRunning(runner, vmid, execution);
  const gone = { ...wish, present: false };
  const [step] = planContainer(gone, observed, await planHost(gone, undefined, true, doors));
  if (step === undefined) return true;
  await heavyTurns.take(execution.signal, () => runStep(step, vmid, execution, { paths, view }));
  return false;
}

/** Programs of ours that make or unmake this container were begun and their end was not settled. */
export function beganHalf(runner: OperationRunner, vmid: number): boolean {
  return runner.recorded(vmid).some(({ argv }) => argv.some((word) => ["create", "clone", "destroy"].includes(word)));
}

/** Removes the records of ended programs, unless they prove that a half-made container is ours. */
export async function forgetEnded(runner: OperationRunner, vmid: number, observed: ObservedContainer): Promise<void> {
  if (observed.where === "here" && isNamelessHalf(observed.config)) return;
  await runner.forgetEnded(vmid);
}
