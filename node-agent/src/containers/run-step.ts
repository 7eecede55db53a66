import { mkdirSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { classifyPctError, hiddenFailure } from "../pct/classify-pct-error.ts";
import type { PctErrorCode } from "../pct/classify-pct-error.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { OUTPUT_LIMIT_BYTES } from "../pct/operation-runner.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import { mergeAuthorizedKeys } from "./authorized-keys.ts";
import { ContainerFailure } from "./container-failure.ts";
import type { Execution, InvocationEnd } from "./execution.ts";
import { requireQuorum } from "./host-view.ts";
import type { HostView } from "./host-view.ts";
import type { WantedKeys } from "./plan-container.ts";
import type { Step } from "./plan-step.ts";

/**
 * Errors that only say that the host is not as it was seen: another look decides whether anything is
 * left to do.
 */
const LOOK_AGAIN: ReadonlySet<string> = new Set<PctErrorCode>([
  "ALREADY_EXISTS",
  "ALREADY_RUNNING",
  "NOT_RUNNING",
  "SAME_SIZE",
  "CONFIG_MISSING",
  "NOT_LOCKED",
]);

const INCOMPLETE = "a push-keys step has five programs";

/** What a step left to know. */
export interface StepResult {
  /** The VMID was taken by somebody between the look and the create. */
  readonly taken: boolean;
  /** What the program said although it exited with 0. */
  readonly hidden: string | undefined;
}

const DONE: StepResult = { taken: false, hidden: undefined };

/** What running a step needs of the host. */
export interface StepDoors {
  readonly paths: HostPaths;
  readonly view: HostView;
  /** The keys of a push-keys step. */
  readonly keys?: WantedKeys | undefined;
  /** How far the command is, for progress. */
  readonly percent?: number;
}

/**
 * Runs a step's programs, each only while the cluster has quorum.
 * @throws ContainerFailure with the host's reason when one of them fails
 */
export async function runStep(step: Step, vmid: number, execution: Execution, doors: StepDoors): Promise<StepResult> {
  if (step.name === "push-keys") return pushKeys(step, vmid, execution, doors);
  let result = DONE;
  for (const invocation of step.invocations) {
    await requireQuorum(doors.view);
    const ended = await execution.run(vmid, invocation, (detail) =>
      execution.report({ step: step.name, percent: doors.percent ?? 0, detail }),
    );
    // Before a clean-up there may be nothing mounted and, after an interrupted one, no lock.
    const isOptional = step.name === "clean-up" && invocation !== step.invocations.at(-1);
    if (!isOptional) result = await judge(invocation, ended, vmid, doors.paths);
  }
  return result;
}

async function judge(
  invocation: Invocation,
  ended: InvocationEnd,
  vmid: number,
  paths: HostPaths,
): Promise<StepResult> {
  const { end, output } = ended;
  if (end.kind === "unobserved") return DONE;
  if (end.kind === "exited" && end.exitCode === 0) {
    return { taken: false, hidden: hiddenFailure(`${output.stdout}\n${output.stderr}`) };
  }
  const error = classifyPctError(output.stderr, output.stdout);
  if (LOOK_AGAIN.has(error.code)) return { taken: error.code === "ALREADY_EXISTS", hidden: undefined };
  // Proxmox always says why it fails: who says nothing was killed.
  if (end.kind !== "exited" || output.stderr.trim() === "") {
    const how = end.kind === "terminated" ? "ran out of time" : "was killed";
    const message = `${invocation.program} ${invocation.args[0] ?? ""} ${how}`;
    throw new ContainerFailure("INTERRUPTED", message, { retryable: true });
  }
  const message = error.code === "START_FAILED" ? await startMessage(vmid, error.message, paths) : error.message;
  throw new ContainerFailure(error.code, message, { retryable: error.retryable });
}

/** What lxc itself said about a start that failed. */
async function startMessage(vmid: number, message: string, paths: HostPaths): Promise<string> {
  const text = await readFile(join(paths.runRoot, `ct-${vmid}.stderr`), "utf8").catch(() => "");
  const line = text.trim().split("\n").at(-1) ?? "";
  return line === "" ? message : `${message}: ${line.slice(0, 300)}`;
}

/**
 * Writes the keys into a running container: reads what root has, replaces our block, and reads again,
 * because `pct push` exits with 0 also when it failed.
 */
async function pushKeys(
  step: Step,
  vmid: number,
  execution: Execution,
  { keys, paths, view }: StepDoors,
): Promise<StepResult> {
  const [makeDirectory, read, push, readAgain, mark] = step.invocations;
  if (makeDirectory === undefined || read === undefined || push === undefined) throw new Error(INCOMPLETE);
  if (readAgain === undefined || mark === undefined) throw new Error(INCOMPLETE);
  if (keys === undefined) throw new Error("a push-keys step needs keys");
  // The quorum may go between two programs as well: every one that changes anything asks.
  const change = async (invocation: Invocation): Promise<InvocationEnd> => {
    await requireQuorum(view);
    return execution.run(vmid, invocation);
  };
  insist(await change(makeDirectory));
  const before = await execution.run(vmid, read);
  const isThere = before.end.kind === "exited" && before.end.exitCode === 0;
  if (!isThere && !/No such file/u.test(before.output.stderr)) insist(before);
  const existing = isThere ? before.output.stdout : "";
  if (Buffer.byteLength(existing) >= OUTPUT_LIMIT_BYTES)
    throw notPushed("authorized_keys is too large to be kept", false);
  const merged = mergeAuthorizedKeys(existing, await readFile(keys.keysFile, "utf8"));
  mkdirSync(dirname(keys.pushFile), { recursive: true, mode: 0o700 });
  writeFileSync(keys.pushFile, merged, { mode: 0o600 });
  insist(await change(push));
  const after = await execution.run(vmid, readAgain);
  insist(after);
  if (after.output.stdout !== merged)
    throw notPushed("the keys that were read back are not those that were written", true);
  return judge(mark, await change(mark), vmid, paths);
}

function insist({ end, output }: InvocationEnd): void {
  if (end.kind === "exited" && end.exitCode === 0) return;
  const { code, message } = classifyPctError(output.stderr, output.stdout);
  // The container was stopped meanwhile: the next look decides.
  if (code === "NOT_RUNNING") throw new ContainerFailure("NOT_RUNNING", message, { retryable: true });
  throw notPushed(message, true);
}

function notPushed(reason: string, retryable: boolean): ContainerFailure {
  return new ContainerFailure("KEYS_NOT_PUSHED", reason, { retryable });
}
