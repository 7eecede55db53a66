import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { SpoolKey } from "./spool-rows.ts";

/*
 * Samples carry no certificate, and the broker knows only which node a client is, not which of its machines.
 * As long as no certificate of a node was revoked there is only one machine, and any spool of it is believed.
 * Once a machine was replaced, the former one may still be connected somewhere: from then on a spool counts only
 * after a session's Hello or a heartbeat under a valid certificate has named it. Until then its batches wait
 * unacknowledged on the host. Spools known before the replacement are refused: what they hold is kept as
 * rejected samples, unless the new machine names them too, because it goes on with the same files.
 */

/** Believes the spools: the holder of a valid certificate says that they are its own. */
export async function trustSpools(tx: Queryable, keys: readonly SpoolKey[]): Promise<void> {
  if (keys.length === 0) return;
  const nodeIds = keys.map((key) => key.nodeId);
  const spoolIds = keys.map((key) => key.spoolId);
  // Without the condition each heartbeat would use up a number of the sequence.
  await Promise.all([
    tx.execute(sql`
      INSERT INTO node_spools (node_id, spool_id)
      SELECT DISTINCT node_id, spool_id FROM unnest(${nodeIds}::uuid[], ${spoolIds}::uuid[]) AS v (node_id, spool_id)
      WHERE NOT EXISTS (SELECT FROM node_spools s WHERE s.node_id = v.node_id AND s.spool_id = v.spool_id)
      ORDER BY 1, 2 ON CONFLICT (node_id, spool_id) DO NOTHING`),
    tx.execute(sql`
      UPDATE node_spools s SET refused_since = NULL
      FROM unnest(${nodeIds}::uuid[], ${spoolIds}::uuid[]) AS v (node_id, spool_id)
      WHERE s.node_id = v.node_id AND s.spool_id = v.spool_id AND s.refused_since IS NOT NULL`),
  ]);
}

/** Refuses the spools that someone with a revoked certificate names. */
export async function refuseSpools(tx: Queryable, keys: readonly SpoolKey[]): Promise<void> {
  if (keys.length === 0) return;
  await tx.execute(sql`
    INSERT INTO node_spools AS s (node_id, spool_id, refused_since)
    SELECT DISTINCT node_id, spool_id, now()
    FROM unnest(${keys.map((key) => key.nodeId)}::uuid[], ${keys.map((key) => key.spoolId)}::uuid[]) AS v (node_id, spool_id)
    ORDER BY 1, 2
    ON CONFLICT (node_id, spool_id) DO UPDATE SET refused_since = now() WHERE s.refused_since IS NULL`);
}

/** Refuses all spools that a node has now; for the moment when another machine takes its place. */
export async function refuseSpoolsOfNode(tx: Queryable, nodeId: string): Promise<void> {
  // In the order in which samples are stored, so that nobody waits for the other.
  await tx.execute(sql`
    UPDATE node_spools SET refused_since = now() WHERE spool_no IN (
      SELECT spool_no FROM node_spools WHERE node_id = ${nodeId} AND refused_since IS NULL ORDER BY spool_no FOR UPDATE)`);
}
