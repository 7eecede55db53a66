import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What is not as it should be on hosts. */
export interface OpenFindings {
  readonly byKind: readonly { readonly kind: string; readonly findings: number; readonly oldestAt: Date }[];
  readonly dismissed: number;
  /** Nothing is done about any of them: a fault of ours is presumed, or hosts are awaited after a restore. */
  readonly held: boolean;
  readonly newest: readonly {
    readonly id: string;
    readonly node: string;
    readonly vmid: number;
    readonly podId: string | null;
    readonly kind: string;
    readonly subject: string;
    readonly firstSeenAt: Date;
    readonly sightings: number;
    readonly action: string | null;
    readonly offered: string[];
  }[];
}

const findingsShown = 20;

/** Counts what is open, and names the newest. Of containers that nobody manages there may be many: they come last. */
export async function readFindings(db: Queryable): Promise<OpenFindings> {
  const [byKind, [rest], newest] = await Promise.all([
    db.query<OpenFindings["byKind"][number]>(sql`
      SELECT kind, count(*)::integer AS findings, min(first_seen_at) AS "oldestAt" FROM node_findings WHERE state = 'open' GROUP BY kind ORDER BY kind`),
    db.query<{ dismissed: number; held: boolean }>(sql`
      SELECT (SELECT count(*)::integer FROM node_findings WHERE state = 'dismissed') AS dismissed,
        holds_orders OR EXISTS (SELECT FROM node_conditions WHERE kind = 'MassVanishing') AS held FROM control_plane_epoch`),
    db.query<OpenFindings["newest"][number]>(sql`
      SELECT f.id, n.name AS node, f.vmid, f.pod_id AS "podId", f.kind, f.subject, f.first_seen_at AS "firstSeenAt", f.sightings, f.action, f.offered
      -- Chosen by their ids: whole rows of all that are open would be sorted.
      FROM (SELECT id FROM node_findings WHERE state = 'open' ORDER BY kind = 'unmanaged', first_seen_at DESC, id LIMIT ${findingsShown}) AS shown
      JOIN node_findings f ON f.id = shown.id JOIN nodes n ON n.id = f.node_id
      ORDER BY f.kind = 'unmanaged', f.first_seen_at DESC, f.id`),
  ]);
  return { byKind, dismissed: rest?.dismissed ?? 0, held: rest?.held ?? false, newest };
}
