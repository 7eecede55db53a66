import type { Invocation } from "../pct/pct-arguments.ts";

/** What a step does; reported as progress. */
export type StepName =
  | "clone"
  | "create"
  | "restore"
  | "set"
  | "mark"
  | "resize"
  | "push-keys"
  | "start"
  | "shutdown"
  | "stop"
  | "reboot"
  | "unlock"
  | "unlock-template"
  | "clean-up"
  | "destroy";

/** One step towards a wish. The host is looked at again after it. */
export interface Step {
  readonly name: StepName;
  /** Run in order; the exact words. */
  readonly invocations: readonly Invocation[];
}

/** Steps that copy or free whole disks: only a few of them run at a time. */
export function isHeavy(step: Step): boolean {
  return ["clone", "create", "restore", "resize", "destroy", "clean-up"].includes(step.name);
}

/** Steps that only take away what an earlier failure left. */
export function isRepair(step: Step): boolean {
  return ["unlock", "unlock-template", "clean-up"].includes(step.name);
}

/** A step of one or more invocations. */
export function step(name: StepName, ...invocations: Invocation[]): Step {
  return { name, invocations };
}
