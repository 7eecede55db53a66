import { TaskFailedError } from "./errors.ts";
import { followTo, nameOf, requireSuccess } from "./finish-work.ts";
import type { OpenedCli } from "./open-cli.ts";
import { formatDuration } from "./terminal/format.ts";
import { describeHealth } from "./views/pod-views.ts";
import { renderDryRun, requirePossible } from "./views/dry-run-view.ts";

/** The pod that is ordered for the test. */
export interface TestOrder {
  readonly planCode: string;
  readonly region: string | undefined;
  readonly hostname: string;
}

/** Tells what an order would do. @throws DomainError when it would be refused */
export async function previewProvisioning(cli: OpenedCli, order: TestOrder): Promise<void> {
  const preview = await cli.api.call("previewCreate", { body: order });
  cli.show(preview, renderDryRun);
  requirePossible(preview.body);
}

/**
 * Orders a pod, waits until it runs, looks at its health and destroys it, also when something failed.
 * @throws TaskFailedError
 */
export async function proveProvisioning(cli: OpenedCli, order: TestOrder, deadlineMs: number): Promise<void> {
  const startMs = performance.now();
  const { pod, task } = (await cli.api.call("createPod", { body: order })).body;
  const steps: { step: string; durationMs: number }[] = [];
  const took = (step: string, fromMs: number): void =>
    void steps.push({ step, durationMs: Math.round(performance.now() - fromMs) });
  let health;
  try {
    requireSuccess((await followTo(cli, task, nameOf(pod), deadlineMs)).body);
    took("create", startMs);
    health = await cli.api.call("showHealth", { pod: pod.id });
    if (!health.body.healthy) throw new TaskFailedError(`The pod runs, but is ${describeHealth(health.body)}`);
  } finally {
    const destroyMs = performance.now();
    const destroyed = (await cli.api.call("destroyPod", { pod: pod.id })).body;
    requireSuccess((await followTo(cli, destroyed.task, nameOf(pod), deadlineMs)).body);
    took("destroy", destroyMs);
  }
  if (cli.isJson) {
    cli.out.raw(JSON.stringify({ pod: { id: pod.id, vmid: pod.vmid, node: pod.node }, health: health.body, steps }));
    return;
  }
  const times = steps.map(({ step, durationMs }) => `${step} ${formatDuration(durationMs)}`).join(", ");
  cli.out.print(
    `${order.planCode} can be ordered: ${nameOf(pod)} ran on ${pod.node ?? "a host"}, is gone again; ${times}.`,
  );
}
