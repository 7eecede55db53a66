import { DomainError } from "@cloudpods/shared/errors";
import type { SortKey } from "../http/list-page.ts";
import type { Queryable } from "../platform/database.ts";
import { joinSql, sql, type Sql } from "../platform/sql.ts";
import type { Actor } from "../security/actor.ts";

/** Which rows of the audit log are meant; what is undefined does not matter. */
export interface AuditFilter {
  readonly tenantId?: string | undefined;
  /** Id of a user, API token or node, or the name of a part of the control plane. */
  readonly actor?: string | undefined;
  readonly action?: string | undefined;
  readonly targetType?: string | undefined;
  /** Id of the changed thing. */
  readonly target?: string | undefined;
  readonly since?: Date | undefined;
  /** Exclusive. */
  readonly until?: Date | undefined;
}

/** One change that someone made. */
export interface AuditRow {
  readonly id: string;
  readonly at: Date;
  readonly tenantId: string | null;
  readonly actorKind: Actor["kind"];
  readonly actorId: string | null;
  readonly requestId: string | null;
  readonly action: string;
  readonly targetType: string;
  readonly targetId: string | null;
  readonly detail: Readonly<Record<string, unknown>>;
  /** Place in the chain; null until the row is sealed. */
  readonly seq: bigint | null;
  /** The instant to the last place, in microseconds since 1970. */
  readonly atMicros: bigint;
}

/** Rows of the audit log, newest first; `after` is the `auditKey` of the last one of the page before. */
export async function listAudit(
  db: Queryable,
  filter: AuditFilter,
  page: { readonly limit: number; readonly after?: SortKey | undefined },
): Promise<AuditRow[]> {
  const conditions = [...conditionsOf(filter), ...afterRow(page.after)];
  const where = conditions.length === 0 ? sql`` : sql`WHERE ${joinSql(conditions, sql` AND `)}`;
  return await db.query<AuditRow>(sql`
    SELECT id, at, tenant_id AS "tenantId", actor_kind AS "actorKind", actor_id AS "actorId", request_id AS "requestId", action,
      target_type AS "targetType", target_id AS "targetId", detail, chain_seq AS seq, (extract(epoch FROM at) * 1000000)::bigint AS "atMicros"
    FROM audit_log ${where} ORDER BY at DESC, id DESC LIMIT ${page.limit}`);
}

/** Where a row stands in the list. */
export function auditKey(row: Pick<AuditRow, "atMicros" | "id">): SortKey {
  return [String(row.atMicros), row.id];
}

function conditionsOf(filter: AuditFilter): Sql[] {
  const { tenantId, actor, action, targetType, target, since, until } = filter;
  return [
    tenantId === undefined ? [] : [sql`tenant_id = ${tenantId}`],
    actor === undefined ? [] : [sql`actor_id = ${actor}`],
    action === undefined ? [] : [sql`action = ${action}`],
    targetType === undefined ? [] : [sql`target_type = ${targetType}`],
    target === undefined ? [] : [sql`target_id = ${target}`],
    since === undefined ? [] : [sql`at >= ${since}`],
    until === undefined ? [] : [sql`at < ${until}`],
  ].flat();
}

function afterRow(after: SortKey | undefined): Sql[] {
  if (after === undefined) return [];
  const [atMicros = "", id] = after;
  // Exact in the double that an interval is multiplied by, and within what a timestamp can hold.
  if (!/^\d{1,16}$/.test(atMicros)) {
    throw new DomainError("invalid", "CURSOR_INVALID", "The cursor is not one that a list of this kind gave out.");
  }
  return [sql`(at, id) < (timestamptz 'epoch' + ${atMicros}::bigint * interval '1 microsecond', ${id}::uuid)`];
}
