import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { ReadComparison } from "./read-comparison.ts";
import type { Reconciliation, SeenFact } from "./reconcile.ts";

/** Writes what follows from one inventory, once: a repetition with the same inventory finds it compared already. */
export async function storeFindings(
  tx: Queryable,
  { nodeId, number }: ReadComparison,
  { seen, gone }: Reconciliation,
  now: Date,
): Promise<boolean> {
  const isNew = await tx.execute(sql`
    UPDATE node_inventories SET compared_number = ${number} WHERE node_id = ${nodeId} AND number = ${number} AND compared_number <> ${number}`);
  if (isNew === 0) return false;
  for (const fact of seen)
    await (fact.known === undefined ? insert(tx, nodeId, fact, now) : renew(tx, fact.known.id, fact, now));
  await tx.execute(sql`
    UPDATE node_findings SET state = 'resolved', resolved_at = ${now}, resolved_by = 'system:reconciler', resolution = 'gone'
    WHERE id = ANY(${gone.map(({ id }) => id)}::uuid[]) AND state <> 'resolved'`);
  await markMissing(tx, nodeId, now);
  return true;
}

async function insert(tx: Queryable, nodeId: string, fact: SeenFact, now: Date): Promise<void> {
  await tx.execute(sql`
    INSERT INTO node_findings (id, node_id, vmid, pod_id, kind, subject, evidence, offered, first_seen_at, last_seen_at, sightings)
    VALUES (${newId()}, ${nodeId}, ${fact.vmid}, ${fact.podId}::uuid, ${fact.kind}, ${fact.subject}, ${JSON.stringify(fact.evidence)},
      ${[...fact.offered]}, ${fact.firstSeenAt}, ${now}, ${fact.sightings})
    ON CONFLICT (node_id, vmid, kind) WHERE state <> 'resolved' DO NOTHING`);
}

/** With another subject it is another thing: what was done or decided about the former one does not count. */
async function renew(tx: Queryable, id: string, fact: SeenFact, now: Date): Promise<void> {
  await tx.execute(sql`
    UPDATE node_findings SET subject = ${fact.subject}, pod_id = ${fact.podId}::uuid, evidence = ${JSON.stringify(fact.evidence)},
      offered = ${[...fact.offered]}, first_seen_at = ${fact.firstSeenAt}, last_seen_at = ${now}, sightings = ${fact.sightings},
      state = CASE WHEN subject = ${fact.subject} THEN state ELSE 'open' END,
      resolved_at = CASE WHEN subject = ${fact.subject} THEN resolved_at END, resolved_by = CASE WHEN subject = ${fact.subject} THEN resolved_by END,
      resolution = CASE WHEN subject = ${fact.subject} THEN resolution END, reason = CASE WHEN subject = ${fact.subject} THEN reason END,
      action = CASE WHEN subject = ${fact.subject} THEN action END, action_by = CASE WHEN subject = ${fact.subject} THEN action_by END,
      acted_at = CASE WHEN subject = ${fact.subject} THEN acted_at END, attempts = CASE WHEN subject = ${fact.subject} THEN attempts ELSE 0 END,
      command_id = CASE WHEN subject = ${fact.subject} THEN command_id END, task_id = CASE WHEN subject = ${fact.subject} THEN task_id END
    WHERE id = ${id} AND state <> 'resolved'`);
}

/** The condition of the pods themselves, which their owners see. */
async function markMissing(tx: Queryable, nodeId: string, now: Date): Promise<void> {
  await tx.execute(sql`
    WITH missing AS (SELECT pod_id FROM node_findings WHERE node_id = ${nodeId} AND kind = 'missing' AND state <> 'resolved')
    UPDATE cloud_pods p SET container_missing_since = CASE WHEN p.id IN (SELECT pod_id FROM missing) THEN coalesce(container_missing_since, ${now}) END
    WHERE p.node_id = ${nodeId} AND (container_missing_since IS NOT NULL) <> (p.id IN (SELECT pod_id FROM missing))`);
}
