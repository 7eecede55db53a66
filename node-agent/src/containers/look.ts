import { randomUUID } from "node:crypto";
import type { OperationOutput, OperationRunner } from "../pct/operation-runner.ts";

/**
 * Runs a program that changes nothing and answers with what it wrote; undefined when it failed, was
 * late or is still busy after being asked to end.
 */
export async function look(
  runner: OperationRunner,
  argv: readonly string[],
  signal: AbortSignal,
  deadlineMs: number,
): Promise<OperationOutput | undefined> {
  const id = `look-${randomUUID()}`;
  const operation = await runner.start({ operationId: id, commandId: id, vmid: 0, argv });
  const end = await operation.wait({ signal, deadlineMs });
  const output = await operation.output();
  // What does not end keeps its record until it has.
  if (end.kind !== "terminated" || end.ended) operation.forget();
  return end.kind === "exited" && end.exitCode === 0 ? output : undefined;
}
