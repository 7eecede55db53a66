import { isSilent, wasHeardSinceGivenUp } from "../nodes/host-silence.ts";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

const ofArchives = ["backup", "verify_backup", "delete_backup", "restore"];

/**
 * Ends what a host that was given up is still asked for, so that the work that waits for it ends by its own rules: what
 * was to be done there has failed, what was to be taken back or removed there is gone with it. Not so an archive: it may lie
 * where others see it, so none was made, none was deleted, and none came back as a container. A later word of the host finds its commands ended. Nothing is answered for a host of which anything was heard, nor once its evacuation has ended.
 * @returns how many commands were ended
 */
export async function answerForLostHost(db: Database, nodeId: string): Promise<number> {
  return await db.execute(sql`
    UPDATE node_commands c SET finished_at = now(), retryable = false, error_code = 'NODE_EVACUATED',
      error_message = 'The host was given up; its pods are brought back elsewhere.',
      state = coalesce((SELECT CASE WHEN t.state <> 'compensating' AND (t.type <> 'destroy' OR c.op = ANY(${ofArchives})) THEN 'failed'
          WHEN c.op = ANY(${ofArchives}) THEN 'cancelled' ELSE 'succeeded' END
        FROM cloud_pod_provisioning_tasks t WHERE t.command_id = c.id AND t.state IN ('running', 'waiting', 'compensating')), 'cancelled'),
      command = command #- '{ensureContainer,spec,sshAuthorizedKeys}' #- '{restore,spec,sshAuthorizedKeys}'
    FROM node_status s
    WHERE c.node_id = ${nodeId} AND s.node_id = c.node_id AND ${isSilent} AND c.state IN ('pending', 'sent', 'accepted', 'running')
      AND EXISTS (SELECT FROM node_drains d WHERE d.node_id = c.node_id AND d.kind = 'evacuation' AND d.finished_at IS NULL AND NOT ${wasHeardSinceGivenUp})`);
}
