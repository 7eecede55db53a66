import { setTimeout as pause } from "node:timers/promises";
import { messageOf } from "../agent-error.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import { pctUnlock } from "../pct/pct-arguments.ts";
import { asFailure } from "./container-failure.ts";
import type { ContainerWish } from "./container-wish.ts";
import type { ConvergeDoors } from "./doors.ts";
import { beginExecution } from "./execution.ts";
import type { Execution } from "./execution.ts";
import { isNamelessHalf, lockOf } from "./observed-container.ts";
import type { ObservedContainer } from "./observed-container.ts";
import { createPatience } from "./patience.ts";
import { isLeftover, planContainer } from "./plan-container.ts";
import { planHost } from "./plan-host.ts";
import { step } from "./plan-step.ts";
import { attachRunning } from "./recover.ts";
import { runStep } from "./run-step.ts";

/** How long a half-made container may take to be cleared away after its command has failed. */
const CLEAN_UP_MS = 120_000;

/** How long to look whether a template stays locked without a holder. */
const TEMPLATE_MS = 15_000;
const TEMPLATE_LOOK_MS = 250;

/**
 * After a failure: takes a half-made container of ours away, which carries no name, so that nobody
 * could tell later whose it is; and the lock that a clone left on its template. Never throws: what it
 * cannot clear now, the records still prove and the next clone unlocks.
 *
 * @param template the template of a clone that failed
 */
export async function clearAway(
  wish: ContainerWish,
  template: number | undefined,
  commandId: string,
  doors: ConvergeDoors,
): Promise<void> {
  const { log, paths, runner, patience: limits } = doors;
  const { signal } = new AbortController();
  const execution = beginExecution(paths, runner, { commandId, signal, deadlineMs: CLEAN_UP_MS });
  const patience = createPatience(limits);
  try {
    let isDone = false;
    while (!isDone) {
      try {
        isDone = await isClear(wish, execution, doors);
        patience.refill();
      } catch (error) {
        await patience.spend(asFailure(error), execution.signal);
      }
    }
    if (template !== undefined) await freeTemplate(template, execution, doors);
  } catch (error) {
    const reason = messageOf(error);
    log.error({ vmid: wish.vmid, reason }, "what a failed command left could not be cleared away");
  } finally {
    execution.close();
  }
}

/** Unlocks a template whose clone was killed before it could. A lock with a living holder stays. */
async function freeTemplate(
  vmid: number,
  execution: Execution,
  { paths, templateTurns, view }: ConvergeDoors,
): Promise<void> {
  await templateTurns.take(vmid, execution.signal, async () => {
    const until = performance.now() + TEMPLATE_MS;
    while (performance.now() < until) {
      const observed = await view.observe(vmid);
      if (observed.where !== "here" || lockOf(observed.config) !== "disk") return;
      if (observed.lockIsStale) {
        await runStep(step("unlock-template", pctUnlock(vmid)), vmid, execution, { paths, view });
        return;
      }
      await pause(TEMPLATE_LOOK_MS);
    }
  });
}

/** True when there is no half-made container; else takes a step against it. */
async function isClear(wish: ContainerWish, execution: Execution, doors: ConvergeDoors): Promise<boolean> {
  const { heavyTurns, paths, runner, view } = doors;
  const { vmid } = wish;
  const observed = await view.observe(vmid);
  if (!isLeftover(wish, observed, true)) return true;
  await attachRunning(runner, vmid, execution);
  const gone = { ...wish, present: false };
  const [next] = planContainer(gone, observed, await planHost(gone, undefined, true, doors));
  if (next === undefined) return true;
  await heavyTurns.take(execution.signal, () => runStep(next, vmid, execution, { paths, view }));
  return false;
}

/** Programs of ours that make or unmake this container were begun and their end was not settled. */
export function beganHalf(runner: OperationRunner, vmid: number): boolean {
  return runner
    .recorded(vmid)
    .some(({ argv }) => argv.some((word) => ["create", "clone", "restore", "destroy"].includes(word)));
}

/** Removes the records of ended programs, unless they prove that a half-made container is ours. */
export async function forgetEnded(runner: OperationRunner, vmid: number, observed: ObservedContainer): Promise<void> {
  if (observed.where === "here" && isNamelessHalf(observed.config)) return;
  await runner.forgetEnded(vmid);
}
