import {
  Query,
  QueryAnswer,
  type Command,
  type PlanQuestion,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { sql } from "../platform/sql.ts";

/** What a host would run, or why it is not known. */
export type PlanAnswer = { readonly commandLines: readonly string[] } | { readonly reason: string };

const pollMs = 200;

/** What asking needs. `db`: the owner's login, since questions of all tenants lie together. */
export interface AskDoors {
  readonly db: Queryable;
  readonly hints: Hints;
}

/**
 * Asks a host which command lines would reach a state; nothing is changed there. Outside of a transaction, because the
 * question must be committed to be seen.
 */
export async function askPlan(
  doors: AskDoors,
  nodeId: string,
  question: PlanQuestion,
  timeoutMs = 3_000,
): Promise<PlanAnswer> {
  const answer = await ask(doors, nodeId, { $case: "plan", value: question }, timeoutMs);
  return "reason" in answer ? answer : { commandLines: answer.commandLines };
}

/** As `askPlan`, for commands that nobody sends, each as if those before it had been carried out. @returns one answer for each */
export async function askCommands(
  doors: AskDoors,
  nodeId: string,
  commands: readonly Command[],
  timeoutMs = 3_000,
): Promise<PlanAnswer[]> {
  const answer = await ask(doors, nodeId, { $case: "commands", value: { commands: [...commands] } }, timeoutMs);
  if ("reason" in answer) return commands.map(() => answer);
  const unanswered = { reason: "The node's agent is too old to tell." };
  return commands.map((_, index): PlanAnswer => {
    const plan = answer.plans[index];
    if (plan === undefined) return unanswered;
    return plan.error === undefined ? { commandLines: plan.commandLines } : { reason: reasonOf(plan.error) };
  });
}

/** The replica that has the host's session finds the question in the database. */
async function ask(
  { db, hints }: AskDoors,
  nodeId: string,
  question: NonNullable<Query["question"]>,
  timeoutMs: number,
): Promise<QueryAnswer | { readonly reason: string }> {
  const id = newId();
  const query = Query.fromPartial({ queryId: id, question });
  await db.execute(
    sql`INSERT INTO node_queries (id, node_id, question) VALUES (${id}, ${nodeId}, ${JSON.stringify(Query.toJSON(query))})`,
  );
  let wake = (): void => {};
  const stopListening = hints.on("query_answers", (answered) => {
    if (answered === id) wake();
  });
  hints.send("node_queries", nodeId);
  try {
    for (const endMs = performance.now() + timeoutMs; ;) {
      const [row] = await db.query<{ answer: unknown }>(
        sql`SELECT answer FROM node_queries WHERE id = ${id} AND answer IS NOT NULL`,
      );
      if (row !== undefined) return readAnswer(row.answer);
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) return { reason: `The node did not answer within ${timeoutMs / 1_000} s.` };
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(pollMs, leftMs));
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  } finally {
    stopListening();
  }
}

function readAnswer(stored: unknown): QueryAnswer | { readonly reason: string } {
  const answer = QueryAnswer.fromJSON(stored);
  return answer.error === undefined ? answer : { reason: reasonOf(answer.error) };
}

function reasonOf({ code, message }: { readonly code: string; readonly message: string }): string {
  return `${code}: ${message}`;
}
