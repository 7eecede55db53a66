import { readInitPid } from "../pct/read-kernel.ts";
import { pctReboot } from "../pct/pct-arguments.ts";
import { ContainerFailure, asFailure } from "./container-failure.ts";
import type { ContainerOutcome, ExecutionOptions, RebootWish } from "./containers.ts";
import type { ConvergeDoors } from "./doors.ts";
import { beginExecution } from "./execution.ts";
import type { Execution } from "./execution.ts";
import { lockOf } from "./observed-container.ts";
import type { ContainerHere, ObservedContainer } from "./observed-container.ts";
import { createPatience } from "./patience.ts";
import { requireOwnership } from "./plan-container.ts";
import { step } from "./plan-step.ts";
import { attachRunning } from "./recover.ts";
import { runStep } from "./run-step.ts";

/** How often `pct reboot` may say that it succeeded while nothing was restarted. */
const MAX_RESTARTS = 2;

/**
 * Restarts a running container once. It is done when its first process is another one, so that a
 * repetition after a lock or a killed program never restarts it twice. @throws ContainerFailure
 */
export async function reboot(
  wish: RebootWish,
  options: ExecutionOptions,
  doors: ConvergeDoors,
): Promise<ContainerOutcome> {
  const execution = beginExecution(doors.paths, doors.runner, options);
  try {
    return await doors.containerTurns.take(wish.vmid, execution.signal, () => rebootInTurn(wish, execution, doors));
  } catch (error) {
    const { code, message, retryable } = asFailure(error);
    const { commandLines } = execution;
    throw new ContainerFailure(code, message, { retryable, commandLines });
  } finally {
    execution.close();
  }
}

async function rebootInTurn(wish: RebootWish, execution: Execution, doors: ConvergeDoors): Promise<ContainerOutcome> {
  const { vmid } = wish;
  await attachRunning(doors.runner, vmid, execution);
  const patience = createPatience(doors.patience);
  const first = requireHere(vmid, await doors.view.observe(vmid));
  requireOwnership(wish, first);
  const initPid = first.running ? await readInitPid(doors.paths, vmid) : undefined;
  if (initPid === undefined) {
    throw new ContainerFailure("NOT_RUNNING", `container ${vmid} is not running`, { retryable: false });
  }
  for (let restarts = 0; ;) {
    try {
      const observed = requireHere(vmid, await doors.view.observe(vmid));
      const now = observed.running ? await readInitPid(doors.paths, vmid) : undefined;
      if (now !== undefined && now !== initPid) {
        await doors.runner.forgetEnded(vmid);
        return { observation: doors.view.describe(vmid, observed), commandLines: execution.commandLines };
      }
      if (restarts === MAX_RESTARTS) throw withoutEffect(vmid);
      await restart(wish, observed, execution, doors);
      restarts += 1;
    } catch (error) {
      await patience.spend(asFailure(error), execution.signal);
    }
  }
}

async function restart(
  wish: RebootWish,
  observed: ContainerHere,
  execution: Execution,
  doors: ConvergeDoors,
): Promise<void> {
  const { vmid } = wish;
  const lock = lockOf(observed.config);
  if (lock !== "") {
    throw new ContainerFailure("LOCKED", `CT ${vmid} is locked (${lock})`, { retryable: true });
  }
  if (!observed.running) {
    const message = `container ${vmid} went down and did not come up again`;
    throw new ContainerFailure("START_FAILED", message, { retryable: false });
  }
  execution.report({ step: "reboot", percent: 0, detail: "" });
  const timeoutSeconds = Math.max(1, wish.shutdownTimeoutSeconds ?? 60);
  const restartStep = step("reboot", pctReboot(vmid, timeoutSeconds));
  const { paths, view } = doors;
  await runStep(restartStep, vmid, execution, { paths, view });
}

function withoutEffect(vmid: number): ContainerFailure {
  const message = `container ${vmid} still runs its former first process`;
  return new ContainerFailure("STEP_WITHOUT_EFFECT", message, { retryable: false });
}

function requireHere(vmid: number, observed: ObservedContainer): ContainerHere {
  if (observed.where === "here") return observed;
  throw new ContainerFailure("CONTAINER_MISSING", `container ${vmid} is not on this host`, { retryable: false });
}
