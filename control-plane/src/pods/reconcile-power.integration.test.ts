import { newId } from "@cloudpods/shared/ids";
import { expect, test } from "vitest";
import { failing, PodWorkbench } from "../../../test/support/pod-workbench.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { sql } from "../platform/sql.ts";
import { suspendPod } from "./change-power.ts";
import type { Pod } from "./pod.ts";
import { reconcilePower } from "./reconcile-power.ts";

const bench = new PodWorkbench();
const run = (statement: ReturnType<typeof sql>) => bench.db.system.execute(statement);
const pass = () => reconcilePower(bench.db.system);

/** The host sees the pod in another power, and all work on it ended so many minutes ago. */
async function sees(pod: Pick<Pod, "id">, power: "running" | "stopped", minutesAgo: number): Promise<void> {
  await run(sql`UPDATE cloud_pods SET observed_power = ${power}, observed_at = now() WHERE id = ${pod.id}`);
  await passes(pod, minutesAgo);
}

async function passes({ id }: Pick<Pod, "id">, minutes: number): Promise<void> {
  await run(sql`
    UPDATE cloud_pod_provisioning_tasks SET finished_at = finished_at - ${minutes} * interval '1 minute' WHERE pod_id = ${id}`);
}

async function starts({ id }: Pick<Pod, "id">): Promise<string[]> {
  const tasks = await bench.db.system.query<{ state: string }>(
    sql`SELECT state FROM cloud_pod_provisioning_tasks WHERE pod_id = ${id} AND requested_by = 'system:reconciler' ORDER BY id`,
  );
  return tasks.map(({ state }) => state);
}

async function dismiss(pod: Pod, subject: string): Promise<void> {
  await run(sql`DELETE FROM node_findings WHERE pod_id = ${pod.id}`);
  await run(sql`
    INSERT INTO node_findings (id, node_id, vmid, pod_id, kind, subject, evidence, offered, state, first_seen_at, last_seen_at, sightings, resolved_at)
    VALUES (${newId()}, ${pod.nodeId}, ${pod.vmid}, ${pod.id}, 'power', ${subject}, '{}', '{}', 'dismissed', now(), now(), 1, now())`);
}

test("a start that fails again and again is tried less and less often, up to every six hours, until other work came between", async () => {
  const pod = await bench.activePod();
  await sees(pod, "stopped", 10);
  bench.script = failing("ensurePower", "START_FAILED");
  for (const [failures, restMinutes] of [5, 10, 20, 40, 80, 160, 320, 360, 360].entries()) {
    expect(await pass()).toBe(1);
    await expect
      .poll(() => starts(pod), { timeout: 60_000, interval: 10 })
      .toEqual(Array.from({ length: failures + 1 }, () => "failed"));
    await run(sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`);
    await passes(pod, restMinutes - 1);
    expect(await pass()).toBe(0);
    await passes(pod, 1.1);
  }
  await passes(pod, -100);
  expect(await pass()).toBe(0);
  // What somebody else asked for since begins the count anew.
  await run(sql`
    UPDATE cloud_pod_provisioning_tasks SET requested_by = 'test' WHERE id = (
      SELECT id FROM cloud_pod_provisioning_tasks WHERE pod_id = ${pod.id} ORDER BY id DESC LIMIT 1)`);
  expect(await pass()).toBe(1);
});

test("what an operator has dismissed is left so, but for a suspension", async () => {
  const pod = await bench.podNow((await bench.activePod()).id);
  await sees(pod, "stopped", 10);
  await dismiss(pod, "stopped");
  expect(await pass()).toBe(0);
  // Another difference than the one that was dismissed.
  await dismiss(pod, "running");
  const dismissing = standingStill(bench.db.system, 1, () => dismiss(pod, "stopped"));
  expect(await reconcilePower(dismissing)).toBe(0);
  expect(await starts(pod)).toEqual([]);

  const { task } = await bench.inTenant((tx) => suspendPod(tx, bench.who(), pod.id, "billing", undefined));
  await bench.end(task.id);
  await sees(pod, "running", 10);
  await dismiss(pod, "running");
  expect(await pass()).toBe(1);
});
