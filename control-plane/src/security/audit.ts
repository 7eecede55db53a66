import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Actor } from "./actor.ts";

/** One change that someone made. */
export interface AuditEntry {
  readonly actor: Actor;
  /** Of the request, task or command line call that it belongs to. */
  readonly requestId: string | undefined;
  /** Undefined for what belongs to no tenant, such as a node. */
  readonly tenantId: string | undefined;
  /** `<thing>.<deed>`, e.g. `pod.create`. */
  readonly action: string;
  /** Kind of the changed thing, e.g. `pod`. */
  readonly targetType: string;
  readonly targetId: string | undefined;
  /** What changed, for people. Never a password, token, key or hash of one. */
  readonly detail?: Readonly<Record<string, unknown>>;
}

/** Writes one row of the audit log, in the transaction of the change: both happen or neither. */
export async function recordAudit(tx: Queryable, entry: AuditEntry): Promise<void> {
  const detail = JSON.stringify(entry.detail ?? {}, (_, value: unknown) =>
    typeof value === "bigint" ? String(value) : value,
  );
  await tx.execute(sql`
    INSERT INTO audit_log (id, tenant_id, actor_kind, actor_id, request_id, action, target_type, target_id, detail)
    VALUES (${newId()}, ${entry.tenantId ?? null}, ${entry.actor.kind}, ${entry.actor.id}, ${entry.requestId ?? null},
            ${entry.action}, ${entry.targetType}, ${entry.targetId ?? null}, ${detail})`);
}
