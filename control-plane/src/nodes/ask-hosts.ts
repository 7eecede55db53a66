import type { Database } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { askCommands, type PlanAnswer } from "./ask-node.ts";
import { withoutMadeUp, type PlannedCommand } from "./planned-command.ts";
import { operationName } from "./send-command.ts";

/** A planned command with what its host would run for it, or why that is not known. */
export interface ToldCommand {
  readonly node: string;
  /** As in the protocol. */
  readonly command: string;
  readonly lines: readonly string[] | null;
  readonly reason: string | null;
}

/**
 * Asks all hosts of plans for their own command lines, each host once and all at a time. Outside of a
 * transaction: a silent host must not hold a connection. `hints` undefined: none is asked.
 */
export async function askHosts(
  { db, hints }: { readonly db: Database; readonly hints: Hints | undefined },
  plans: readonly (readonly PlannedCommand[])[],
): Promise<ToldCommand[][]> {
  const asked = Map.groupBy(
    plans.flat().filter(({ canBeAsked }) => canBeAsked && hints !== undefined),
    ({ nodeId }) => nodeId,
  );
  const answers = new Map<PlannedCommand, PlanAnswer>();
  await Promise.all(
    [...asked].map(async ([nodeId, commands]) => {
      if (hints === undefined) return;
      const told = await askCommands(
        { db, hints },
        nodeId,
        commands.map(({ command }) => command),
      );
      commands.forEach((planned, index) => {
        const answer = told[index];
        if (answer !== undefined) answers.set(planned, answer);
      });
    }),
  );
  return plans.map((commands) => commands.map((planned) => toldOf(planned, answers.get(planned))));
}

function toldOf({ node, command, canBeAsked }: PlannedCommand, answer: PlanAnswer | undefined): ToldCommand {
  const what = { node, command: command.op === undefined ? "" : operationName(command.op) };
  if (answer !== undefined && "commandLines" in answer)
    return { ...what, lines: answer.commandLines.map(withoutMadeUp), reason: null };
  const unknown = canBeAsked ? "The host was not asked." : "Known once the container is there.";
  return { ...what, lines: null, reason: answer?.reason ?? unknown };
}
