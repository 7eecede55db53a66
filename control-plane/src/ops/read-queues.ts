import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What waits or is under way, and what was given up. */
export interface Queues {
  readonly tasks: readonly { type: string; state: string; tasks: number; oldestSeconds: number }[];
  readonly commands: readonly { state: string; commands: number; oldestSeconds: number }[];
  readonly notifications: readonly { channel: string; waiting: number; retried: number; oldestSeconds: number }[];
  readonly deadLetters: readonly DeadLetterCount[];
}

/** What of one kind was given up for one reason in the last day. */
export interface DeadLetterCount {
  /** An e-mail or webhook, a telemetry message, a sample. */
  readonly kind: "notification" | "message" | "sample";
  readonly reason: string;
  readonly letters: number;
  readonly lastAt: Date;
}

const lettersMax = 10_000;

/** Reads all queues. */
export async function readQueues(db: Queryable): Promise<Queues> {
  const [tasks, commands, notifications, deadLetters] = await Promise.all([
    readOpenTasks(db),
    readOpenCommands(db),
    readOutbox(db),
    readDeadLetters(db),
  ]);
  return { tasks, commands, notifications, deadLetters };
}

/** Tasks that have not ended, by type and state. */
export async function readOpenTasks(db: Queryable): Promise<Queues["tasks"]> {
  return await db.query(sql`
    SELECT type, state, count(*)::integer AS tasks, extract(epoch FROM now() - min(created_at))::integer AS "oldestSeconds"
    FROM cloud_pod_provisioning_tasks WHERE state IN ('queued', 'running', 'waiting', 'compensating') GROUP BY type, state ORDER BY type, state`);
}

/** Commands whose result has not come, by state. */
export async function readOpenCommands(db: Queryable): Promise<Queues["commands"]> {
  return await db.query(sql`
    SELECT state, count(*)::integer AS commands, extract(epoch FROM now() - min(created_at))::integer AS "oldestSeconds"
    FROM node_commands WHERE state IN ('pending', 'sent', 'accepted', 'running') GROUP BY state ORDER BY state`);
}

/** Messages to tenants that are not delivered yet. */
export async function readOutbox(db: Queryable): Promise<Queues["notifications"]> {
  return await db.query(sql`
    SELECT channel, count(*)::integer AS waiting, count(*) FILTER (WHERE attempts > 0)::integer AS retried,
      extract(epoch FROM now() - min(queued_at))::integer AS "oldestSeconds"
    FROM notifications WHERE sent_at IS NULL AND dead_at IS NULL GROUP BY channel ORDER BY channel`);
}

async function readDeadLetters(db: Queryable): Promise<DeadLetterCount[]> {
  return await db.query(sql`
    SELECT kind, reason, count(*)::integer AS letters, max(at) AS "lastAt" FROM (
      (SELECT 'notification' AS kind, coalesce(last_error_code, 'UNKNOWN') AS reason, dead_at AS at FROM notifications
       WHERE dead_at IS NOT NULL AND dead_at > now() - interval '24 hours' LIMIT ${lettersMax})
      UNION ALL
      (SELECT 'message', reason, received_at FROM telemetry_dead_letters
       WHERE received_at > now() - interval '24 hours' AND retried_at IS NULL ORDER BY received_at DESC LIMIT ${lettersMax})
      UNION ALL
      (SELECT 'sample', reason, received_at FROM usage_rejected_samples
       WHERE received_at > now() - interval '24 hours' AND retried_at IS NULL ORDER BY received_at DESC LIMIT ${lettersMax})) AS letters
    GROUP BY kind, reason ORDER BY kind, letters DESC, reason`);
}
