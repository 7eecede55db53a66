import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import type { SessionRef } from "../nodes/session-fence.ts";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { createDispatcher, type DispatcherOptions } from "./create-dispatcher.ts";
import { dispatchQueries } from "./dispatch-commands.ts";
import type { LiveSession } from "./live-session.ts";
import { SessionEnd, superseded } from "./session-end.ts";

/** What the rounds need. */
export interface RoundsOptions extends DispatcherOptions {
  /** Between two looks for commands that no hint announced. */
  readonly pollMs: number;
  /** What agents are told of the broker now; empty while none is known. */
  readonly brokerUrl: () => Promise<string>;
}

/** The work that a replica does for all its sessions together: one statement each, not one per session. */
export interface Rounds {
  /** Looks for commands of a node soon. */
  wake(nodeId: string): void;
  start(): void;
  stop(): Promise<void>;
}

const checkMs = 1_000;
const markMs = 5_000;
/** Agents that must learn of another broker do not all dial at once. */
const redialSpreadMs = 3_000;

/** Makes the rounds; they rest until `start`. */
export function createRounds(options: RoundsOptions): Rounds {
  const { db, hints, log, sessions } = options;
  const stopping = new AbortController();
  const dispatcher = createDispatcher(options, stopping.signal);
  const running: Promise<void>[] = [];
  let asking = false;

  const ask = async (): Promise<void> => {
    if (asking) return;
    asking = true;
    await dispatchQueries(db, sessions).catch((error: unknown) =>
      log.warn({ err: error }, "questions could not be dispatched"),
    );
    asking = false;
  };
  const check = async (held: readonly LiveSession[]): Promise<void> => {
    if (held.length === 0) return;
    for (const over of await findOver(db, held)) {
      const live = sessions.get(over.nodeId);
      // It may have been replaced by a newer one here while the question was under way.
      if (live?.epoch === over.epoch) live.end(superseded());
    }
  };
  const every = async (ms: number, name: string, work: () => Promise<void>): Promise<void> => {
    while (!stopping.signal.aborted) {
      await work().catch((error: unknown) => log.warn({ err: error, round: name }, "a round of the gateway failed"));
      // Rejects when the gateway stops, which the loop asks next.
      await sleep(ms, undefined, { signal: stopping.signal }).catch(() => {});
    }
  };
  const listening: (() => void)[] = [];
  return {
    wake: dispatcher.wake,
    start() {
      listening.push(
        hints.on("node_commands", dispatcher.wake),
        hints.on("node_queries", (nodeId) => void (sessions.has(nodeId) && ask())),
        hints.on("node_sessions", (nodeId) => {
          const held = sessions.get(nodeId);
          if (held === undefined) return;
          check([held]).catch((error: unknown) => log.debug({ err: error }, "a session could not be checked"));
        }),
      );
      running.push(
        every(checkMs, "check", async () => {
          await check([...sessions.values()]);
          await ask();
        }),
        every(checkMs, "broker", async () => endMisled(sessions.values(), await options.brokerUrl())),
        every(markMs, "mark", () => markAlive(db, [...sessions.values()])),
        every(options.pollMs, "poll", async () => {
          for (const nodeId of sessions.keys()) dispatcher.wake(nodeId);
        }),
      );
    },
    async stop() {
      stopping.abort();
      for (const end of listening) end();
      await Promise.all(running);
    },
  };
}

/**
 * Sessions here that are no longer their node's present one, or whose certificate no longer counts. Looked up one by one
 * (LIMIT keeps the planner from anything else): right after many hosts have joined its statistics are of a small fleet,
 * and it would read the whole of it for each session.
 */
async function findOver(db: Database, sessions: readonly LiveSession[]): Promise<SessionRef[]> {
  const held = JSON.stringify(
    sessions.map(({ nodeId, epoch, serial }) => ({ node_id: nodeId, epoch: String(epoch), serial })),
  );
  return await db.query<SessionRef>(sql`
    SELECT x.node_id AS "nodeId", x.epoch FROM jsonb_to_recordset(${held}::jsonb) AS x(node_id uuid, epoch bigint, serial text)
    LEFT JOIN LATERAL (
      SELECT true AS holds FROM node_status s JOIN nodes n ON n.id = s.node_id JOIN node_certificates c ON c.node_id = n.id
      WHERE s.node_id = x.node_id AND s.session_epoch = x.epoch AND n.removed_at IS NULL AND c.serial = x.serial AND c.revoked_at IS NULL
      LIMIT 1) AS present ON true
    WHERE present.holds IS NULL`);
}

/** Ends sessions whose agents were told of another broker: where it is they hear only when a session begins. */
function endMisled(sessions: Iterable<LiveSession>, brokerUrl: string): void {
  if (brokerUrl === "") return;
  for (const session of sessions) {
    if (session.welcome.brokerUrl === brokerUrl) continue;
    const waitMs = Math.random() * redialSpreadMs;
    session.end(new SessionEnd(status.UNAVAILABLE, "BROKER_MOVED", "the broker is elsewhere now; dial again", waitMs));
  }
}

/** Marks the sessions as alive. Who is at work on a host need not be waited for: its next mark is near. */
async function markAlive(db: Database, sessions: readonly LiveSession[]): Promise<void> {
  if (sessions.length === 0) return;
  const held = JSON.stringify(sessions.map(({ nodeId, epoch }) => ({ node_id: nodeId, epoch: String(epoch) })));
  await db.execute(sql`
    WITH mine AS (
      SELECT s.node_id FROM node_status s JOIN jsonb_to_recordset(${held}::jsonb) AS x(node_id uuid, epoch bigint)
        ON x.node_id = s.node_id AND x.epoch = s.session_epoch
      FOR NO KEY UPDATE OF s SKIP LOCKED)
    UPDATE node_status s SET session_seen_at = now(), session_connected = true FROM mine WHERE s.node_id = mine.node_id`);
}
