import { basename } from "node:path";
import { invocationDeadlineMs } from "../pct/command-line.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import type { Execution } from "./execution.ts";

/**
 * Waits for every program that a former agent process left running for a container. Returns whether
 * any program was ever started for the command.
 * @throws ContainerFailure CANCELLED or DEADLINE_EXCEEDED; the program was then asked to end
 */
export async function attachRunning(runner: OperationRunner, vmid: number, execution: Execution): Promise<boolean> {
  let ran = false;
  for (const record of runner.recorded(vmid)) {
    if (record.commandId === execution.commandId) ran = true;
    const operation = await runner.attach(record.operationId);
    if (operation === undefined || !(await operation.isAlive())) continue;
    const [path = "", word = ""] = record.argv;
    // Programs have their own names on every host; only pct and pvesm have subcommands.
    const program = basename(path) === "vzdump" ? "vzdump" : "pct";
    const step = program === "vzdump" ? program : word;
    execution.report({ step, percent: 0, detail: "continues after a restart of the agent" });
    await operation.wait({
      signal: execution.signal,
      deadlineMs: invocationDeadlineMs({ program, args: record.argv.slice(1) }),
    });
    execution.check();
  }
  return ran;
}
