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

/** How long clearing up after a command may take. */
const CLEAN_UP_MS = 120_000;

/** How long to look whether a template stays locked without a holder. */
const TEMPLATE_MS = 15_000;
const TEMPLATE_LOOK_MS = 250;

/**
 * After a failure: takes a half-made container of ours away, which carries no name, so that nobody
 * could tell later whose it is. Never throws: of what it cannot clear now the records are still the proof.
 */
export async function clearAway(wish: ContainerWish, commandId: string, doors: ConvergeDoors): Promise<void> {
  await afterwards(wish.vmid, commandId, doors, async (execution) => {
    const patience = createPatience(doors.patience);
    let isDone = false;
    while (!isDone) {
      try {
        isDone = await isClear(wish, execution, doors);
        patience.refill();
      } catch (error) {
        await patience.spend(asFailure(error), execution.signal);
      }
    }
  });
}

/**
 * Unlocks the template of which, as the records show, a clone of ours for this container was begun, and which that may have
 * left locked. A lock with a living holder stays. Never throws: the next clone looks again.
 */
export async function freeTemplate(vmid: number, commandId: string, doors: ConvergeDoors): Promise<void> {
  const { paths, runner, templateTurns, view } = doors;
  const clone = runner.recorded(vmid).findLast(({ argv }) => argv[0] === paths.pctPath && argv[1] === "clone");
  const template = Number(clone?.argv[2]);
  if (clone === undefined) return;
  const lockOfTemplate = async (): Promise<"none" | "held" | "stale"> => {
    const observed = await view.observe(template);
    if (observed.where !== "here" || lockOf(observed.config) !== "disk") return "none";
    return observed.lockIsStale ? "stale" : "held";
  };
  await afterwards(vmid, commandId, doors, async (execution) => {
    const until = performance.now() + TEMPLATE_MS;
    let lock = await lockOfTemplate();
    for (; lock === "held" && performance.now() < until; lock = await lockOfTemplate()) await pause(TEMPLATE_LOOK_MS);
    if (lock !== "stale") return;
    const unlock = step("unlock-template", pctUnlock(template));
    await templateTurns.take(template, execution.signal, async () => {
      // While this waited for its turn another clone of ours may have unlocked and locked it.
      if ((await lockOfTemplate()) === "stale") await runStep(unlock, vmid, execution, { paths, view });
    });
  });
}

/** Work that follows the end of a command, also of one that was cancelled or is out of time. */
async function afterwards(
  vmid: number,
  commandId: string,
  { log, paths, runner }: ConvergeDoors,
  work: (execution: Execution) => Promise<void>,
): Promise<void> {
  const { signal } = new AbortController();
  const execution = beginExecution(paths, runner, { commandId, signal, deadlineMs: CLEAN_UP_MS });
  try {
    await work(execution);
  } catch (error) {
    log.error({ vmid, reason: messageOf(error) }, "what a command left could not be cleared away");
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
