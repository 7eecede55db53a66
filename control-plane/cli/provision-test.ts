import type { AnswerOf } from "./api/endpoints.ts";
import { InterruptedError, TaskFailedError } from "./errors.ts";
import { followTo, nameOf, requireSuccess } from "./finish-work.ts";
import type { OpenedCli } from "./open-cli.ts";
import { formatDuration } from "./terminal/format.ts";
import { whenToldToEnd } from "./terminal/when-told-to-end.ts";
import { describeError } from "./views/error-view.ts";
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

interface Step {
  readonly step: string;
  readonly durationMs: number;
}

/**
 * Orders a pod, waits until it runs, looks at its health and destroys it, also when something failed. A first Ctrl-C or
 * SIGTERM destroys it too, without waiting for its end; a later one ends the program at once.
 * @throws TaskFailedError, InterruptedError
 */
export async function proveProvisioning(cli: OpenedCli, order: TestOrder, deadlineMs: number): Promise<void> {
  const { promise: interrupted, reject } = Promise.withResolvers<never>();
  // It may come while nobody waits for it.
  interrupted.catch(() => undefined);
  const forget = whenToldToEnd(() => reject(new InterruptedError("Interrupted")));
  try {
    await prove(cli, order, deadlineMs, interrupted);
  } finally {
    forget();
  }
}

async function prove(cli: OpenedCli, order: TestOrder, deadlineMs: number, interrupted: Promise<never>): Promise<void> {
  const startMs = performance.now();
  // Not given up when interrupted: without the answer nobody knows which pod to destroy.
  const { pod, task } = (await cli.api.call("createPod", { body: order })).body;
  const steps: Step[] = [];
  const took = (step: string, fromMs: number): void =>
    void steps.push({ step, durationMs: Math.round(performance.now() - fromMs) });
  let health;
  let fault: unknown;
  try {
    requireSuccess((await followTo(cli, task, nameOf(pod), deadlineMs, interrupted)).body);
    took("create", startMs);
    health = await Promise.race([cli.api.call("showHealth", { pod: pod.id }), interrupted]);
    if (!health.body.healthy) throw new TaskFailedError(`The pod runs, but is ${describeHealth(health.body)}`);
  } catch (error) {
    fault = error;
  }
  const destroyMs = performance.now();
  try {
    await destroy(cli, pod, deadlineMs, interrupted);
  } catch (error) {
    if (fault === undefined || error instanceof InterruptedError) throw error;
    // What went wrong first is what the test has found.
    cli.out.note(`${describeError(error)}\n  Destroy the pod yourself: cloudpods pods destroy ${pod.id}`);
  }
  if (fault !== undefined) throw fault;
  took("destroy", destroyMs);
  if (cli.isJson) {
    cli.out.raw(JSON.stringify({ pod: { id: pod.id, vmid: pod.vmid, node: pod.node }, health: health?.body, steps }));
    return;
  }
  const times = steps.map(({ step, durationMs }) => `${step} ${formatDuration(durationMs)}`).join(", ");
  cli.out.print(
    `${order.planCode} can be ordered: ${nameOf(pod)} ran on ${pod.node ?? "a host"}, is gone again; ${times}.`,
  );
}

async function destroy(
  cli: OpenedCli,
  pod: AnswerOf<"showPod">,
  deadlineMs: number,
  interrupted: Promise<never>,
): Promise<void> {
  const { task } = (await cli.api.call("destroyPod", { pod: pod.id })).body;
  try {
    requireSuccess((await followTo(cli, task, nameOf(pod), deadlineMs, interrupted)).body);
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    throw new InterruptedError(
      `Interrupted; ${nameOf(pod)} is being destroyed, watch it with: cloudpods tasks watch ${task.id}`,
    );
  }
}
