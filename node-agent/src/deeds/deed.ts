import { type MoveObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { forgetEnded } from "../containers/clear-away.ts";
import { ContainerFailure, asFailure } from "../containers/container-failure.ts";
import type { ContainerOutcome, ExecutionOptions, PodContainer } from "../containers/containers.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { beginExecution } from "../containers/execution.ts";
import type { Execution } from "../containers/execution.ts";
import { lockOf } from "../containers/observed-container.ts";
import type { ContainerHere, ObservedContainer } from "../containers/observed-container.ts";
import { createPatience, passesByItself } from "../containers/patience.ts";
import { requireOwnership } from "../containers/plan-container.ts";
import { step } from "../containers/plan-step.ts";
import type { Step } from "../containers/plan-step.ts";
import { attachRunning } from "../containers/recover.ts";
import { runStep } from "../containers/run-step.ts";
import type { StepResult } from "../containers/run-step.ts";
import { pctUnlock } from "../pct/pct-arguments.ts";

/** What a deed made or found besides the container. */
export type DeedResult = Pick<ContainerOutcome, "backup" | "move">;

/** Locks whose holder may be gone without having left a container that is half something. */
const BREAKABLE: ReadonlySet<string> = new Set([
  "backup",
  "disk",
  "fstrim",
  "migrate",
  "mounted",
  "snapshot",
  "snapshot-delete",
]);

/** Carries out a deed that changes nothing of a container. @throws ContainerFailure */
export async function carryOutAside(
  options: ExecutionOptions,
  doors: ConvergeDoors,
  work: (execution: Execution) => Promise<DeedResult>,
): Promise<ContainerOutcome> {
  const execution = beginExecution(doors.paths, doors.runner, options);
  const { commandLines } = execution;
  try {
    return { ...(await work(execution)), observation: undefined, commandLines };
  } catch (error) {
    const { code, message, retryable } = asFailure(error);
    throw new ContainerFailure(code, message, { retryable, commandLines });
  } finally {
    execution.close();
  }
}

/**
 * Carries out a deed when it is the container's turn, after every program that a former agent process left
 * running for it has ended. @throws ContainerFailure with the container as it is afterwards
 */
export async function carryOut(
  vmid: number,
  options: ExecutionOptions,
  doors: ConvergeDoors,
  work: (execution: Execution) => Promise<DeedResult>,
): Promise<ContainerOutcome> {
  const execution = beginExecution(doors.paths, doors.runner, options);
  const { commandLines } = execution;
  const settled = async (): Promise<ObservedContainer | undefined> => {
    const observed = await doors.view.observe(vmid).catch(() => undefined);
    if (observed !== undefined) await forgetEnded(doors.runner, vmid, observed);
    return observed;
  };
  const describe = (observed: ObservedContainer | undefined) =>
    observed === undefined ? undefined : doors.view.describe(vmid, observed);
  try {
    return await doors.containerTurns.take(vmid, execution.signal, async () => {
      try {
        await attachRunning(doors.runner, vmid, execution);
        const result = await work(execution);
        return { ...result, observation: describe(await settled()), commandLines };
      } catch (error) {
        const { code, message, retryable, move } = asFailure(error);
        const observation = describe(await settled());
        throw new ContainerFailure(code, message, {
          retryable,
          commandLines,
          ...(observation === undefined ? {} : { observation }),
          ...(move === undefined ? {} : { move }),
        });
      }
    });
  } catch (error) {
    throw asFailure(error);
  } finally {
    execution.close();
  }
}

/**
 * Repeats work while it fails for a reason that passes by itself. Nothing else is tried again: a deed that
 * stops a container is not worth several attempts. @throws ContainerFailure
 */
export async function patiently<T>(execution: Execution, doors: ConvergeDoors, work: () => Promise<T>): Promise<T> {
  const patience = createPatience(doors.patience);
  for (;;) {
    execution.check();
    try {
      return await work();
    } catch (error) {
      const failure = asFailure(error);
      if (!passesByItself(failure.code)) throw failure;
      await patience.spend(failure, execution.signal);
    }
  }
}

/**
 * The pod's container on this host without a lock; one without a holder is broken.
 * @throws ContainerFailure LOCKED while the lock has a holder
 */
export async function requireFree(
  pod: PodContainer,
  execution: Execution,
  doors: ConvergeDoors,
): Promise<ContainerHere> {
  const { vmid } = pod;
  const observed = await doors.view.observe(vmid);
  if (observed.where === "elsewhere") {
    throw new ContainerFailure("ON_OTHER_NODE", `container ${vmid} is on node ${observed.node}`, { retryable: false });
  }
  if (observed.where === "nowhere") {
    throw new ContainerFailure("CONTAINER_MISSING", `container ${vmid} does not exist`, { retryable: false });
  }
  requireOwnership(pod, observed);
  const lock = lockOf(observed.config);
  if (lock === "") return observed;
  if (!observed.lockIsStale || !BREAKABLE.has(lock)) {
    throw new ContainerFailure("LOCKED", `CT ${vmid} is locked (${lock})`, { retryable: !observed.lockIsStale });
  }
  await takeStep(step("unlock", pctUnlock(vmid)), vmid, execution, doors);
  return requireFree(pod, execution, doors);
}

/**
 * Where a container is that a deed had stopped in vain, with how long it stood still if it runs here again; undefined when
 * that cannot be seen.
 */
export async function placeAgain(
  vmid: number,
  { view }: ConvergeDoors,
  awayMs: () => number,
): Promise<MoveObservation | undefined> {
  try {
    const observed = await view.observe(vmid);
    if (observed.where === "nowhere") return undefined;
    if (observed.where === "elsewhere")
      return { pveName: observed.node, power: Power.POWER_UNSPECIFIED, downtimeMs: 0n };
    const { nodeName: pveName } = await view.cluster();
    if (!observed.running) return { pveName, power: Power.POWER_STOPPED, downtimeMs: 0n };
    return { pveName, power: Power.POWER_RUNNING, downtimeMs: BigInt(Math.max(0, awayMs())) };
  } catch {
    return undefined;
  }
}

/** Runs one step of a deed. @throws ContainerFailure with the host's reason */
export async function takeStep(
  next: Step,
  vmid: number,
  execution: Execution,
  { paths, view }: ConvergeDoors,
): Promise<StepResult> {
  return runStep(next, vmid, execution, { paths, view });
}

/** The failure of a deed that a former agent process began and whose effect is not there. */
export function interrupted(what: string): ContainerFailure {
  const message = `the agent was restarted in the middle of ${what}; the observation says what it found`;
  return new ContainerFailure("INTERRUPTED", message, { retryable: true });
}
