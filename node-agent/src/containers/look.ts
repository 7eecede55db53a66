import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { OperationOutput, OperationRunner } from "../pct/operation-runner.ts";

/** Looks belong to no container. */
const NO_VMID = 0;
const ID_PREFIX = "look-";
/** Looks of this process whose output was not read yet. */
const inProgress = new Set<string>();

/**
 * Runs a program that changes nothing and answers with what it wrote; undefined when it failed, was
 * late or is still busy after being asked to end. While a former look with the same words is alive,
 * be it of a former agent process, it is not started again: what hangs would only pile up.
 */
export async function look(
  runner: OperationRunner,
  argv: readonly string[],
  signal: AbortSignal,
  deadlineMs: number,
): Promise<OperationOutput | undefined> {
  if (await forgetEndedLooks(runner, argv)) return undefined;
  const id = `${ID_PREFIX}${randomUUID()}`;
  inProgress.add(id);
  try {
    // A program that is not there tells nothing; its record goes with the next look.
    const operation = await runner
      .start({ operationId: id, commandId: id, vmid: NO_VMID, argv })
      .catch(() => undefined);
    if (operation === undefined) return undefined;
    const end = await operation.wait({ signal, deadlineMs });
    const output = await operation.output();
    // What does not end keeps its record until it has.
    if (end.kind !== "terminated" || end.ended) operation.forget();
    return end.kind === "exited" && end.exitCode === 0 ? output : undefined;
  } finally {
    inProgress.delete(id);
  }
}

/** Removes what ended looks have left; true while one with these words is alive. */
async function forgetEndedLooks(runner: OperationRunner, argv: readonly string[]): Promise<boolean> {
  let isBusy = false;
  for (const { operationId, argv: words } of runner.recorded(NO_VMID)) {
    if (!operationId.startsWith(ID_PREFIX) || inProgress.has(operationId)) continue;
    const operation = await runner.attach(operationId);
    if (operation === undefined) continue;
    if (!(await operation.isAlive())) operation.forget();
    else if (isDeepStrictEqual(words, argv)) isBusy = true;
  }
  return isBusy;
}
