import type { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { insertCommand } from "../nodes/send-command.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { aboveAllGenerations } from "../pods/next-generation.ts";
import { isInUse } from "./backup.ts";
import { seesBackup } from "./backup-storage.ts";

/** What a host is asked to do with an archive. */
export type Errand = "verify" | "delete";

/** A backup is read to its end again after this. */
const verifyEveryDays = 7;
const verifyTimeoutMs = 4 * 3_600_000;
const deleteTimeoutMs = 1_800_000;
const batchMax = 100;

/** An archive and the host that is asked about it. */
interface ErrandRow {
  readonly id: string;
  readonly tenantId: string;
  readonly podId: string;
  readonly vmid: number;
  readonly generation: bigint;
  readonly revision: bigint;
  readonly volumeId: string;
  readonly nodeId: string;
}

/** What shall go: what was asked for, and what a failed backup left behind. */
const toDelete: Sql = sql`b.pruned_at IS NULL AND (b.state = 'failed' OR (b.state = 'available' AND b.delete_requested_at IS NOT NULL))
  AND NOT ${isInUse}`;
/** What was not looked at for a week, and what work in a hurry did not find (`judgeLook`); archives that are going are not read any more. */
const toVerify = (now: Date): Sql => sql`b.state = 'available' AND b.delete_requested_at IS NULL
  AND (b.checked_at < ${now}::timestamptz - ${verifyEveryDays} * interval '1 day' OR (b.damaged_at IS NOT NULL AND b.error_code IS NOT NULL))`;

/** Whether a host reads an archive already; such hosts are left out, so that their many do not keep others waiting. */
const isReading = (nodeId: Sql): Sql => sql`EXISTS (
  SELECT FROM cloud_pod_backups r JOIN node_commands c ON c.id = r.errand_command_id
  WHERE r.errand = 'verify' AND c.node_id = ${nodeId} AND c.finished_at IS NULL)`;

/** What sending needs. */
export interface ErrandDoors {
  readonly db: Database;
  readonly log: Logger;
}

/**
 * Sends what is to be done with archives to hosts that see them: the one that made it first, else any that is there; where
 * it did not succeed last time comes last. A host reads one archive at a time for this.
 * @returns the hosts that have something to do now
 */
export async function sendErrands(doors: ErrandDoors, now: Date): Promise<string[]> {
  const deleting = await sendAll(doors, "delete", toDelete, now);
  return [...new Set([...deleting, ...(await sendAll(doors, "verify", toVerify(now), now))])];
}

async function sendAll({ db, log }: ErrandDoors, errand: Errand, which: Sql, now: Date): Promise<string[]> {
  const due = selectDue(errand, which, now);
  const rows = await db.query<ErrandRow>(sql`${due} ORDER BY b.errand_after LIMIT ${batchMax}`);
  const told: string[] = [];
  const message = "an errand about an archive could not be sent";
  const telling = { log, message, fields: ({ id }: ErrandRow) => ({ backupId: id, errand }) };
  await eachByItself(errand === "delete" ? rows : onePerHost(rows), telling, async (row) => {
    const nodeId = await db.transaction((tx) => send(tx, errand, row, due));
    if (nodeId !== undefined) told.push(nodeId);
  });
  return told;
}

/** Archives about which a host can be asked now, and that host. */
function selectDue(errand: Errand, which: Sql, now: Date): Sql {
  return sql`
    SELECT b.id, b.tenant_id AS "tenantId", b.pod_id AS "podId", b.vmid, p.revision,
      ${aboveAllGenerations} AS generation, b.volume_id AS "volumeId", host.id AS "nodeId"
    FROM cloud_pod_backups b JOIN cloud_pods p ON p.id = b.pod_id, LATERAL (
      SELECT v.node_id AS id FROM node_storages v JOIN node_status s ON s.node_id = v.node_id
      WHERE v.available AND ${seesBackup} AND s.state IN ('online', 'degraded') AND s.session_connected AND ${`${errand}_backup`} = ANY(s.capabilities)
      ORDER BY v.node_id IS NOT DISTINCT FROM b.errand_failed_node_id, v.node_id = b.node_id DESC, v.node_id LIMIT 1) host
    WHERE ${which} AND b.volume_id IS NOT NULL AND b.errand IS NULL AND b.errand_after <= ${now}
      ${errand === "verify" ? sql`AND NOT ${isReading(sql`host.id`)}` : sql``}`;
}

function onePerHost(rows: readonly ErrandRow[]): ErrandRow[] {
  return [...Map.groupBy(rows, ({ nodeId }) => nodeId).values()].flatMap(([first]) =>
    first === undefined ? [] : [first],
  );
}

/** @returns the host; undefined when it is not due any more, or the host reads another archive */
async function send(
  tx: Transaction,
  errand: Errand,
  { id, podId, nodeId: chosenId }: ErrandRow,
  due: Sql,
): Promise<string | undefined> {
  // Pod before backup, as everybody who restores locks them. The host's row: one archive after the other.
  await tx.query(sql`SELECT FROM cloud_pods WHERE id = ${podId} FOR SHARE`);
  await tx.query(sql`SELECT FROM cloud_pod_backups WHERE id = ${id} FOR UPDATE`);
  if (errand === "verify") await tx.query(sql`SELECT FROM nodes WHERE id = ${chosenId} FOR NO KEY UPDATE`);
  const [row] = await tx.query<ErrandRow>(sql`${due} AND b.id = ${id} AND host.id = ${chosenId}`);
  if (row === undefined) return undefined;
  const { nodeId, tenantId, vmid, generation, revision, volumeId } = row;
  const op: NonNullable<Command["op"]> =
    errand === "verify"
      ? { $case: "verifyBackup", value: { volumeId, atOnce: false } }
      : { $case: "deleteBackup", value: { volumeId } };
  const timeoutMs = errand === "verify" ? verifyTimeoutMs : deleteTimeoutMs;
  const to = { nodeId, tenantId, podId, vmid, generation, revision, timeoutMs };
  const commandId = await insertCommand(tx, { ...to, op });
  await tx.execute(
    sql`UPDATE cloud_pod_backups SET errand = ${errand}, errand_command_id = ${commandId} WHERE id = ${id}`,
  );
  return nodeId;
}
