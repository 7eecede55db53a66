import { ContainerFailure, asFailure } from "../containers/container-failure.ts";
import type { AdoptOrder, ContainerOutcome, DeedOptions } from "../containers/containers.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import type { Execution } from "../containers/execution.ts";
import { step } from "../containers/plan-step.ts";
import { pctSet } from "../pct/pct-arguments.ts";
import { carryOut, patiently, takeStep } from "./deed.ts";
import { planAdopt } from "./plan-adopt.ts";

/** How often the mark may be written without being there afterwards. */
const MAX_MARKS = 3;

/**
 * Marks somebody's container as the pod's. The file's digest goes with the change, so that Proxmox refuses it
 * when anybody changed the container since it was looked at. @throws ContainerFailure
 */
export async function adopt(order: AdoptOrder, options: DeedOptions, doors: ConvergeDoors): Promise<ContainerOutcome> {
  return carryOut(order.vmid, options, doors, async (execution) => {
    for (let marks = 0; ; marks += 1) {
      const isMarked = await patiently(execution, doors, () => mark(order, marks < MAX_MARKS, execution, doors));
      if (isMarked) return {};
    }
  });
}

/** True when the container carries the pod's mark; else writes it, while that `mayWrite`. */
async function mark(
  order: AdoptOrder,
  mayWrite: boolean,
  execution: Execution,
  doors: ConvergeDoors,
): Promise<boolean> {
  const { vmid } = order;
  const change = planAdopt(order, await doors.view.observe(vmid));
  if (change === undefined) return true;
  if (!mayWrite) {
    const message = `pct set ended well and container ${vmid} is not marked`;
    throw new ContainerFailure("STEP_WITHOUT_EFFECT", message, { retryable: false });
  }
  try {
    await takeStep(step("mark", pctSet(vmid, change)), vmid, execution, doors);
  } catch (error) {
    const failure = asFailure(error);
    // A program that was killed may have done its work; what the file is now decides.
    if (failure.code === "INTERRUPTED") return false;
    if (failure.code !== "CONFIG_CHANGED") throw failure;
    throw new ContainerFailure("CONFIG_CHANGED", failure.message, { retryable: false });
  }
  return false;
}
