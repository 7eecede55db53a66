import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { appendNodeEvents } from "./node-events.ts";

/** Conditions that this file alone sets and clears; each follows from what the tables hold. */
const derivedKinds = [
  "CapacityBelowAllocation",
  "CertificateExpiring",
  "FleetEpochAhead",
  "NoQuorum",
  "TemplateMissing",
  "VersionSkew",
] as const;

/** A condition of a host that began or ended. */
export interface ConditionChange {
  readonly nodeId: string;
  readonly kind: string;
  readonly message: string;
  readonly cleared: boolean;
}

/**
 * Brings the conditions of all hosts into line with the tables; what begins and ends goes into their
 * histories. `agentVersion`: what this release expects of agents.
 */
export async function deriveConditions(tx: Transaction, agentVersion: string): Promise<void> {
  const changes = await tx.query<ConditionChange>(sql`
    WITH live AS (
      SELECT n.*, s.quorate, s.agent_version, s.inventory_at, s.fleet_epoch
      FROM nodes n JOIN node_status s ON s.node_id = n.id WHERE n.removed_at IS NULL),
    wanted (node_id, kind, message) AS (
      SELECT id, 'NoQuorum', 'The Proxmox cluster has no quorum: nothing can be changed there.' FROM live WHERE quorate = false
      UNION ALL
      SELECT id, 'VersionSkew', format('The agent is %s, the control plane expects %s.', agent_version, ${agentVersion}::text)
      FROM live WHERE agent_version IS NOT NULL AND agent_version <> ${agentVersion}
      UNION ALL
      SELECT id, 'FleetEpochAhead', 'The host knows a later epoch than the database: the database was restored and that was not declared.'
      FROM live WHERE fleet_epoch > (SELECT epoch FROM control_plane_epoch)
      UNION ALL
      SELECT id, 'TemplateMissing', format('The template %s is not on the host.', coalesce('ct:' || template_vmid, template_archive))
      FROM live WHERE inventory_at IS NOT NULL AND coalesce('ct:' || template_vmid, template_archive) IS NOT NULL
        AND NOT EXISTS (SELECT FROM node_templates t WHERE t.node_id = id AND t.name = coalesce('ct:' || template_vmid, template_archive))
      UNION ALL
      SELECT id, 'CapacityBelowAllocation', 'More is promised than the host has: ' || string_agg(part, ', ' ORDER BY part) FROM live JOIN (
          SELECT node_id, format('cpu %s of %s', cpu_allocated, cpu_allocatable) AS part FROM node_capacity WHERE cpu_allocated > cpu_allocatable
          UNION ALL SELECT node_id, format('memory %s of %s MB', memory_allocated_mb, memory_allocatable_mb) FROM node_capacity
          WHERE memory_allocated_mb > memory_allocatable_mb
          UNION ALL SELECT v.node_id, format('storage %s %s of %s GB', g.name, g.allocated_gb, g.allocatable_gb)
          FROM storages g JOIN node_storages v ON v.storage_id = g.id WHERE g.allocated_gb > g.allocatable_gb) AS parts ON parts.node_id = live.id
      GROUP BY id
      UNION ALL
      SELECT id, 'CertificateExpiring', 'The certificate was not renewed in the last quarter of its life; it ends at ' || to_char(c.not_after AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC.'
      FROM live JOIN node_certificates c ON c.node_id = live.id
      WHERE c.revoked_at IS NULL AND now() > c.not_after - (c.not_after - c.not_before) / 4 AND NOT EXISTS (
        SELECT FROM node_certificates n WHERE n.node_id = c.node_id AND n.revoked_at IS NULL AND (n.issued_at, n.serial) > (c.issued_at, c.serial))),
    cleared AS (
      DELETE FROM node_conditions d WHERE d.kind = ANY(${[...derivedKinds]})
        AND NOT EXISTS (SELECT FROM wanted w WHERE w.node_id = d.node_id AND w.kind = d.kind)
      RETURNING node_id, kind, message),
    known AS (SELECT node_id, kind FROM node_conditions),
    stored AS (
      INSERT INTO node_conditions AS d (node_id, kind, message) SELECT node_id, kind, message FROM wanted
      ON CONFLICT (node_id, kind) DO UPDATE SET message = excluded.message WHERE d.message <> excluded.message
      RETURNING node_id, kind, message)
    SELECT node_id AS "nodeId", kind, message, false AS cleared FROM stored s
    WHERE NOT EXISTS (SELECT FROM known k WHERE k.node_id = s.node_id AND k.kind = s.kind)
    UNION ALL SELECT node_id, kind, message, true FROM cleared`);
  await recordConditionEvents(tx, changes);
}

/** The end of a clone's knocking: see the judgement of sessions. */
export async function clearQuietDuplicates(tx: Transaction): Promise<void> {
  const cleared = await tx.query<{ nodeId: string; kind: string; message: string }>(sql`
    DELETE FROM node_conditions d USING node_status s
    WHERE d.kind = 'DuplicateAgent' AND s.node_id = d.node_id AND s.session_connected AND d.since < now() - interval '2 minutes'
      AND NOT EXISTS (SELECT FROM jsonb_array_elements(s.recent_hellos) h WHERE to_timestamp((h->>'atMs')::float8 / 1000) > now() - interval '2 minutes')
    RETURNING d.node_id AS "nodeId", d.kind, d.message`);
  await recordConditionEvents(
    tx,
    cleared.map((row) => ({ ...row, cleared: true })),
  );
}

/** Adds conditions that began or ended to the histories of their hosts. */
export async function recordConditionEvents(tx: Queryable, changes: readonly ConditionChange[]): Promise<void> {
  const events = changes.map(({ nodeId, kind, message, cleared }) => ({
    nodeId,
    kind: cleared ? "CONDITION_CLEARED" : "CONDITION_RAISED",
    message: cleared ? `${kind} is over` : `${kind}: ${message}`,
    detail: { condition: kind },
  }));
  await appendNodeEvents(tx, events);
}
