import { sql, type Sql } from "../platform/sql.ts";
import { backupStep, checkStep } from "./forward-steps.ts";
import { transferStep } from "./transfer-step.ts";

/** Until the last of these is done the pod is where it was, with everything that it ever wrote. */
export const firstSteps = [checkStep.name, transferStep.name, backupStep.name] as const;

/**
 * Whether a move `m` has done nothing to its pod yet, by its task `t`: it waits for a worker, for its next try or for a turn
 * of its host, who tells before he stops anything. What he has answered is taken up first.
 */
export const isUntouched: Sql = sql`(m.state = 'moving' AND m.stopped_at IS NULL AND t.step = ANY(${[...firstSteps]}) AND t.state IN ('queued', 'running', 'waiting')
  AND t.cancel_requested_at IS NULL AND (t.command_id IS NULL OR EXISTS (
    SELECT FROM node_commands c WHERE c.id = t.command_id AND c.state IN ('pending', 'sent', 'accepted'))))`;

/** Whether a move `m` may be called back at any of its steps, by its task `t`: of a host that is gone, before the pod has changed hands. */
export const isRecallable: Sql = sql`(m.purpose = 'evacuate' AND m.state = 'moving' AND m.switched_at IS NULL
  AND t.state IN ('queued', 'running', 'waiting') AND t.cancel_requested_at IS NULL)`;
