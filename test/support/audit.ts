import { expect } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { TestDatabase } from "./postgres.ts";

/** One row of the audit log. */
export interface AuditRow {
  readonly action: string;
  readonly tenant_id: string | null;
  readonly actor_kind: string;
  readonly actor_id: string;
  readonly request_id: string | null;
  readonly target_type: string;
  readonly target_id: string | null;
  readonly detail: Readonly<Record<string, unknown>>;
}

/**
 * Runs a change and expects exactly one audit row of it that is like `expected`, and none that holds one of the
 * `secrets`. Gives what the change gave. Nothing else may change the database at the same time.
 */
export async function expectAudited<T>(
  db: Pick<TestDatabase, "system">,
  expected: Partial<AuditRow>,
  change: () => Promise<T>,
  secretsOf: (result: T) => readonly string[] = () => [],
): Promise<T> {
  const before = new Set((await db.system.query<{ id: string }>(sql`SELECT id FROM audit_log`)).map((row) => row.id));
  const result = await change();
  const rows = await db.system.query<AuditRow & { id: string }>(sql`SELECT * FROM audit_log`);
  const added = rows.filter((row) => !before.has(row.id));
  const matching = added.filter((row) => row.action === expected.action);
  expect(matching, `audit rows with the action ${expected.action}`).toHaveLength(1);
  expect(matching[0]).toMatchObject(expected);
  for (const secret of secretsOf(result)) expect(JSON.stringify(added)).not.toContain(secret);
  return result;
}
