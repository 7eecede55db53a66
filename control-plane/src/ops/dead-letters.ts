import type { Queryable } from "../platform/database.ts";
import { joinSql, sql, type Sql } from "../platform/sql.ts";

/** Kinds of what was put aside because it could not be delivered or stored. */
export const deadLetterKinds = ["notification", "telemetry-message", "rejected-sample"] as const;
export type DeadLetterKind = (typeof deadLetterKinds)[number];

interface CommonFacts {
  readonly id: string;
  /** When it was put aside. */
  readonly deadAt: Date;
  /** Why, as an upper-case code. */
  readonly reason: string | null;
  readonly detail: string | null;
}

/** Something that waits to be retried; of a notification without its text, which is the tenant's. */
export type DeadLetter = CommonFacts &
  (
    | {
        readonly kind: "notification";
        readonly tenantId: string;
        readonly channel: "email" | "webhook";
        readonly recipient: string;
        readonly occasion: string;
        readonly attempts: number;
      }
    | {
        readonly kind: "telemetry-message";
        /** Null where the topic names no node. */
        readonly nodeId: string | null;
        readonly topic: string;
        readonly payloadBytes: number;
      }
    | {
        readonly kind: "rejected-sample";
        readonly nodeId: string;
        readonly podId: string;
        /** As the host sent it; 64-bit numbers are texts. */
        readonly sample: Readonly<Record<string, unknown>>;
      }
  );

/** A place in the list. */
export interface DeadLetterPlace {
  /** Microseconds since 1970: a Date would lose those that the list is sorted by. */
  readonly atUs: bigint;
  readonly id: string;
}

interface Source {
  readonly table: Sql;
  readonly at: Sql;
  readonly waits: Sql;
  readonly reason: Sql;
  readonly detail: Sql;
  readonly facts: Sql;
}

const sources: Readonly<Record<DeadLetterKind, Source>> = {
  notification: {
    table: sql`notifications`,
    at: sql`dead_at`,
    waits: sql`dead_at IS NOT NULL`,
    reason: sql`last_error_code`,
    detail: sql`last_error_message`,
    facts: sql`jsonb_build_object('tenantId', tenant_id, 'channel', channel, 'recipient', recipient, 'occasion', dedupe_key, 'attempts', attempts)`,
  },
  "telemetry-message": {
    table: sql`telemetry_dead_letters`,
    at: sql`received_at`,
    waits: sql`retried_at IS NULL`,
    reason: sql`reason`,
    detail: sql`detail`,
    facts: sql`jsonb_build_object('nodeId', node_id, 'topic', topic, 'payloadBytes', length(payload))`,
  },
  "rejected-sample": {
    table: sql`usage_rejected_samples`,
    at: sql`received_at`,
    waits: sql`retried_at IS NULL`,
    reason: sql`reason`,
    detail: sql`NULL`,
    facts: sql`jsonb_build_object('nodeId', node_id, 'podId', coalesce(sample->>'podId', ''), 'sample', sample)`,
  },
};

type ListedRow = CommonFacts & { readonly kind: DeadLetterKind; readonly atUs: bigint; readonly facts: object };

/** What waits, newest first, with the place of each. Only under the owner's login. */
export async function listDeadLetters(
  db: Queryable,
  wish: {
    readonly kind: DeadLetterKind | undefined;
    readonly before: DeadLetterPlace | undefined;
    readonly limit: number;
  },
): Promise<{ letter: DeadLetter; place: DeadLetterPlace }[]> {
  const kinds = wish.kind === undefined ? deadLetterKinds : [wish.kind];
  // Each table gives a page by its own index; of those pages one is made.
  const rows = await db.query<ListedRow>(sql`
    SELECT kind, id, at AS "deadAt", (extract(epoch FROM at) * 1000000)::bigint AS "atUs", reason, detail, facts
    FROM (${joinSql(
      kinds.map((kind) => pageOf(kind, wish.before, wish.limit)),
      sql` UNION ALL `,
    )}) AS letters ORDER BY at DESC, id DESC LIMIT ${wish.limit}`);
  return rows.map(({ facts, atUs, ...common }) => ({
    // The statement gives each kind its own facts.
    letter: { ...common, ...facts } as DeadLetter,
    place: { atUs, id: common.id },
  }));
}

function pageOf(kind: DeadLetterKind, before: DeadLetterPlace | undefined, limit: number): Sql {
  const { table, at, waits, reason, detail, facts } = sources[kind];
  const isBefore =
    before === undefined
      ? sql`true`
      : sql`(${at}, id) < ('epoch'::timestamptz + ${before.atUs}::bigint * interval '1 microsecond', ${before.id}::uuid)`;
  return sql`(
    SELECT ${kind}::text AS kind, id, ${at} AS at, ${reason}::text AS reason, ${detail}::text AS detail, ${facts} AS facts
    FROM ${table} WHERE ${waits} AND ${isBefore} ORDER BY ${at} DESC, id DESC LIMIT ${limit})`;
}

/** The kind of what has this id, retried or not; undefined when nothing has. */
export async function findDeadLetterKind(db: Queryable, id: string): Promise<DeadLetterKind | undefined> {
  const looks = deadLetterKinds.map(
    (kind) => sql`SELECT ${kind}::text AS kind FROM ${sources[kind].table} WHERE id = ${id}`,
  );
  const [found] = await db.query<{ kind: DeadLetterKind }>(joinSql(looks, sql` UNION ALL `));
  return found?.kind;
}

/** How many of each kind wait, counted up to `most`. */
export async function countDeadLetters(db: Queryable, most: number): Promise<ReadonlyMap<DeadLetterKind, number>> {
  const counts = deadLetterKinds.map(
    (kind) => sql`
      SELECT ${kind}::text AS kind, count(*)::integer AS waiting
      FROM (SELECT FROM ${sources[kind].table} WHERE ${sources[kind].waits} LIMIT ${most}) AS counted`,
  );
  const rows = await db.query<{ kind: DeadLetterKind; waiting: number }>(joinSql(counts, sql` UNION ALL `));
  return new Map(rows.map(({ kind, waiting }) => [kind, waiting]));
}
