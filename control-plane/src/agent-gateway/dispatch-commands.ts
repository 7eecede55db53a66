import { Command, Query } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { chooseCommands, type OpenCommand } from "./choose-commands.ts";
import type { LiveSession } from "./live-session.ts";

/** Commands that are unfinished in one session at most; the host works on a few of them at a time. */
const windowMax = 64;
/** Open commands of a node that are looked at; the rest follows as these end. */
const openMax = 4 * windowMax;

/** What one round did. */
export interface DispatchRound {
  /** Nodes whose row was locked by somebody just then, or whose session is over. */
  readonly notReached: readonly string[];
  /** Commands that ended by being overtaken. */
  readonly superseded: readonly string[];
  /** Since the making of each command that was sent for the first time, ms. */
  readonly waitedMs: readonly number[];
}

interface CommandRow extends Omit<OpenCommand, "inFlight"> {
  readonly nodeId: string;
  /** Null when the session had it. */
  readonly command: unknown;
  readonly waitedMs: number;
}

/**
 * Gives the sessions what is open for their nodes: new commands, and in a new session everything that an
 * earlier one left unfinished. One transaction for all nodes; written to the streams after its commit.
 * The sessions' rows are held meanwhile, so that a newer session finds what this one was given.
 */
export async function dispatchCommands(db: Database, sessions: readonly LiveSession[]): Promise<DispatchRound> {
  const reached = new Set<string>();
  const superseded: string[] = [];
  let written: { session: LiveSession; row: CommandRow }[] = [];
  await db.transaction(async (tx) => {
    reached.clear();
    superseded.length = 0;
    written = [];
    const [rows] = await Promise.all([
      readOpen(tx, sessions, reached),
      // A mark that is lost in a crash only means that the command is sent once more.
      tx.execute(sql`SELECT set_config('synchronous_commit', 'off', true)`),
    ]);
    for (const session of sessions) {
      const own = rows.filter((row) => row.nodeId === session.nodeId);
      // As it was when they were read: one that has ended since came without its command.
      const choice = chooseCommands(
        own.map((row) => ({ ...row, inFlight: row.command === null })),
        windowMax,
      );
      superseded.push(...choice.superseded);
      const byId = new Map(own.map((row) => [row.id, row]));
      written.push(...choice.send.flatMap((id) => ({ session, row: byId.get(id) })).filter(hasRow));
    }
    await markSuperseded(tx, superseded);
    const marked = await markSent(
      tx,
      written.filter(({ row }) => row.pending).map(({ row }) => row.id),
    );
    // Whatever was cancelled since it was read stays here.
    written = written.filter(({ row }) => !row.pending || marked.has(row.id));
  });
  for (const { session, row } of written) {
    session.inFlight.add(row.id);
    session.send({ $case: "command", value: Command.fromJSON(row.command) });
  }
  return {
    notReached: sessions.filter((session) => !reached.has(session.nodeId)).map((session) => session.nodeId),
    superseded,
    waitedMs: written.filter(({ row }) => row.pending).map(({ row }) => row.waitedMs),
  };
}

function hasRow(item: {
  session: LiveSession;
  row: CommandRow | undefined;
}): item is { session: LiveSession; row: CommandRow } {
  return item.row !== undefined;
}

async function readOpen(
  tx: Transaction,
  sessions: readonly LiveSession[],
  reached: Set<string>,
): Promise<CommandRow[]> {
  const wanted = JSON.stringify(
    sessions.map(({ nodeId, epoch, inFlight }) => ({ node_id: nodeId, epoch: String(epoch), known: [...inFlight] })),
  );
  const rows = await tx.query<CommandRow & { id: string | null }>(sql`
    WITH live AS (
      SELECT s.node_id, x.known FROM jsonb_to_recordset(${wanted}::jsonb) AS x(node_id uuid, epoch bigint, known uuid[])
      JOIN node_status s ON s.node_id = x.node_id AND s.session_epoch = x.epoch
      FOR SHARE OF s SKIP LOCKED)
    SELECT live.node_id AS "nodeId", c.id, c.pod_id AS "podId", c.op, c.generation, c.revision, c.state = 'pending' AS pending,
      CASE WHEN c.id <> ALL(live.known) THEN c.command END AS command, extract(epoch FROM clock_timestamp() - c.created_at)::float8 * 1000 AS "waitedMs"
    FROM live LEFT JOIN LATERAL (
      SELECT * FROM node_commands o WHERE o.node_id = live.node_id AND o.state IN ('pending', 'sent', 'accepted', 'running')
      ORDER BY o.id LIMIT ${openMax}) AS c ON true
    ORDER BY c.id`);
  for (const row of rows) reached.add(row.nodeId);
  return rows.filter((row) => row.id !== null);
}

async function markSuperseded(tx: Transaction, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  await tx.execute(sql`
    UPDATE node_commands SET state = 'superseded', finished_at = now(), error_code = 'SUPERSEDED', error_message = 'A newer wish for the pod was made before this one left.',
      command = command #- '{ensureContainer,spec,sshAuthorizedKeys}'
    WHERE id = ANY(${[...ids]}::uuid[]) AND state = 'pending'`);
}

async function markSent(tx: Transaction, ids: readonly string[]): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set();
  const rows = await tx.query<{ id: string }>(sql`
    UPDATE node_commands SET state = 'sent', sent_at = now() WHERE id = ANY(${[...ids]}::uuid[]) AND state = 'pending' RETURNING id`);
  return new Set(rows.map((row) => row.id));
}

/** Gives the sessions the questions that wait for their nodes; one older than 10 s has nobody waiting for it. */
export async function dispatchQueries(db: Database, sessions: ReadonlyMap<string, LiveSession>): Promise<void> {
  if (sessions.size === 0) return;
  const rows = await db.query<{ id: string; nodeId: string; question: unknown }>(sql`
    UPDATE node_queries SET sent_at = now()
    WHERE node_id = ANY(${[...sessions.keys()]}::uuid[]) AND sent_at IS NULL AND asked_at > now() - interval '10 s'
    RETURNING id, node_id AS "nodeId", question`);
  for (const { id, nodeId, question } of rows) {
    const query = Query.fromJSON(question);
    sessions.get(nodeId)?.send({ $case: "query", value: { ...query, queryId: id } });
  }
}
