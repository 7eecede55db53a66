import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { sql } from "../platform/sql.ts";
import type { Step } from "../tasks/saga.ts";
import { commandStep } from "./command-steps.ts";

/** A start after a crash may check the file system first, which took 45 s on real hosts. */
const startTimeoutMs = 300_000;
/** How long a guest may take to shut down before it is stopped. */
export const shutdownTimeoutSeconds = 60;
/** The guest's own time to shut down, the forced stop after it, and a margin. */
const stopTimeoutMs = (shutdownTimeoutSeconds + 60) * 1_000;
/** A reboot that comes hours late would be a fault of ours, not a service. */
const rebootTtlMs = 600_000;

/** The pod runs. */
export function startStep(percent: number): Step {
  return commandStep({
    name: "start",
    percent,
    waitingFor: "Starting the container",
    wish: () => ({
      op: { $case: "ensurePower", value: { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 0 } },
      timeoutMs: startTimeoutMs,
    }),
    async onSuccess({ tx }, pod) {
      await tx.execute(sql`UPDATE cloud_pods SET observed_power = 'running', observed_at = now() WHERE id = ${pod.id}`);
      return { kind: "done", message: "The container runs" };
    },
  });
}

/** The pod is shut down. */
export function stopStep(percent: number): Step {
  return commandStep({
    name: "stop",
    percent,
    waitingFor: "Shutting the container down",
    wish: () => ({
      op: { $case: "ensurePower", value: { power: Power.POWER_STOPPED, shutdownTimeoutSeconds } },
      timeoutMs: stopTimeoutMs,
    }),
    async onSuccess({ tx }, pod) {
      await tx.execute(sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`);
      return { kind: "done", message: "The container is stopped" };
    },
  });
}

/** The pod is restarted once. */
export function rebootStep(percent: number): Step {
  return commandStep({
    name: "reboot",
    percent,
    waitingFor: "Restarting the container",
    wish: () => ({
      op: { $case: "reboot", value: { shutdownTimeoutSeconds } },
      timeoutMs: stopTimeoutMs + startTimeoutMs,
      ttlMs: rebootTtlMs,
    }),
    async onSuccess({ tx }, pod) {
      await tx.execute(sql`UPDATE cloud_pods SET observed_power = 'running', observed_at = now() WHERE id = ${pod.id}`);
      return { kind: "done", message: "The container was restarted" };
    },
  });
}
