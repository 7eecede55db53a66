import { Query, QueryAnswer, type PlanQuestion } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { sql } from "../platform/sql.ts";

/** What a host would run, or why it is not known. */
export type PlanAnswer = { readonly commandLines: readonly string[] } | { readonly reason: string };

const pollMs = 200;

/**
 * Asks a host which command lines would reach a state; nothing is changed there. The replica that has the
 * host's session finds the question in the database. `db`: the owner's login, since questions of all tenants lie
 * together, and outside of a transaction, because the question must be committed to be seen.
 */
export async function askPlan(
  deps: { readonly db: Queryable; readonly hints: Hints },
  nodeId: string,
  question: PlanQuestion,
  timeoutMs = 3_000,
): Promise<PlanAnswer> {
  const id = newId();
  const query = Query.fromPartial({ queryId: id, question: { $case: "plan", value: question } });
  await deps.db.execute(
    sql`INSERT INTO node_queries (id, node_id, question) VALUES (${id}, ${nodeId}, ${JSON.stringify(Query.toJSON(query))})`,
  );
  let wake = (): void => {};
  const stopListening = deps.hints.on("query_answers", (answered) => {
    if (answered === id) wake();
  });
  deps.hints.send("node_queries", nodeId);
  try {
    for (const endMs = performance.now() + timeoutMs; ;) {
      const [row] = await deps.db.query<{ answer: unknown }>(
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

function readAnswer(stored: unknown): PlanAnswer {
  const { commandLines, error } = QueryAnswer.fromJSON(stored);
  return error === undefined ? { commandLines } : { reason: `${error.code}: ${error.message}` };
}
