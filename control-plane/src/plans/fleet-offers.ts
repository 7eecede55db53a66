import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** A region with hosts. */
export interface OfferedRegion {
  readonly region: string;
  /** Whether pods can be ordered there now. */
  readonly acceptsOrders: boolean;
}

/** A template that hosts have. */
export interface OfferedTemplate {
  readonly template: string;
  readonly regions: readonly string[];
  readonly nodes: number;
}

/** The regions that there are, by name. Works under both logins. */
export async function listRegions(db: Queryable): Promise<OfferedRegion[]> {
  return await db.query<OfferedRegion>(sql`
    SELECT n.region, bool_or(n.schedulable AND st.state = 'online') AS "acceptsOrders"
    FROM nodes n JOIN node_status st ON st.node_id = n.id
    WHERE n.removed_at IS NULL AND n.role = 'hypervisor' GROUP BY n.region ORDER BY n.region`);
}

/** The templates that there are, by name, and in which regions. Works under both logins. */
export async function listTemplates(db: Queryable): Promise<OfferedTemplate[]> {
  return await db.query<OfferedTemplate>(sql`
    SELECT t.name AS template, array_agg(DISTINCT n.region ORDER BY n.region) AS regions, count(*)::integer AS nodes
    FROM node_templates t JOIN nodes n ON n.id = t.node_id
    WHERE n.removed_at IS NULL AND n.role = 'hypervisor' GROUP BY t.name ORDER BY t.name`);
}
