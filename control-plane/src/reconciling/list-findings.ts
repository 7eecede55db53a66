import type { FindingKind } from "@cloudpods/shared/finding-kinds";
import { DomainError } from "@cloudpods/shared/errors";
import { isUuid } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { joinSql, sql, type Sql } from "../platform/sql.ts";
import type { FindingState, Remedy } from "./finding.ts";

/** A finding as operators see it. */
export interface Finding {
  readonly id: string;
  readonly nodeId: string;
  readonly node: string;
  readonly vmid: number;
  readonly podId: string | null;
  readonly tenantId: string | null;
  readonly kind: FindingKind;
  readonly subject: string;
  readonly evidence: Readonly<Record<string, unknown>>;
  readonly offered: Remedy[];
  readonly state: FindingState;
  readonly firstSeenAt: Date;
  readonly lastSeenAt: Date;
  readonly sightings: number;
  readonly action: string | null;
  readonly actionBy: string | null;
  readonly actedAt: Date | null;
  readonly attempts: number;
  /** How the last command or task about it stands. */
  readonly actionState: string | null;
  readonly actionError: string | null;
  readonly taskId: string | null;
  readonly resolvedAt: Date | null;
  readonly resolvedBy: string | null;
  readonly resolution: string | null;
  readonly reason: string | null;
}

const selectFindings: Sql = sql`
  SELECT f.id, f.node_id AS "nodeId", n.name AS node, f.vmid, f.pod_id AS "podId", p.tenant_id AS "tenantId", f.kind, f.subject, f.evidence, f.offered,
    f.state, f.first_seen_at AS "firstSeenAt", f.last_seen_at AS "lastSeenAt", f.sightings, f.action, f.action_by AS "actionBy",
    f.acted_at AS "actedAt", f.attempts, coalesce(t.state, c.state) AS "actionState",
    coalesce(t.error_code || ': ' || t.error_message, c.error_code || ': ' || c.error_message) AS "actionError", f.task_id AS "taskId",
    f.resolved_at AS "resolvedAt", f.resolved_by AS "resolvedBy", f.resolution, f.reason
  FROM node_findings f JOIN nodes n ON n.id = f.node_id LEFT JOIN cloud_pods p ON p.id = f.pod_id
    LEFT JOIN node_commands c ON c.id = f.command_id LEFT JOIN cloud_pod_provisioning_tasks t ON t.id = f.task_id`;

/** Which findings a list shows. */
export interface FindingFilter {
  readonly nodeId?: string | undefined;
  readonly kind?: FindingKind | undefined;
  readonly state?: FindingState | undefined;
  readonly limit: number;
  /** Id of the last finding of the page before. */
  readonly beforeId?: string | undefined;
}

/** Findings, newest first; open ones unless another state is asked for. */
export async function listFindings(db: Queryable, filter: FindingFilter): Promise<Finding[]> {
  const conditions = [
    sql`f.state = ${filter.state ?? "open"}`,
    ...(filter.nodeId === undefined ? [] : [sql`f.node_id = ${filter.nodeId}`]),
    ...(filter.kind === undefined ? [] : [sql`f.kind = ${filter.kind}`]),
    ...(filter.beforeId === undefined ? [] : [sql`f.id < ${filter.beforeId}::uuid`]),
  ];
  return await db.query<Finding>(
    sql`${selectFindings} WHERE ${joinSql(conditions, sql` AND `)} ORDER BY f.id DESC LIMIT ${filter.limit}`,
  );
}

/** One finding. @throws DomainError `FINDING_NOT_FOUND` */
export async function readFinding(db: Queryable, id: string): Promise<Finding> {
  const [finding] = isUuid(id) ? await db.query<Finding>(sql`${selectFindings} WHERE f.id = ${id}`) : [];
  if (finding === undefined) throw new DomainError("not-found", "FINDING_NOT_FOUND", "There is no such finding.");
  return finding;
}
