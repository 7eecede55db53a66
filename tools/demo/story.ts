import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { type ApiClient, until } from "./api-client.ts";
import { checkInvariants, faultsOf, type Invariants } from "./check-invariants.ts";
import type { DemoHost } from "./demo-hosts.ts";
import { orderPod } from "./order-pod.ts";

/** The last line of the unattended demo. */
export interface Report extends Invariants {
  readonly ok: boolean;
  /** From the start of the program to the first active pod. */
  readonly firstActivePodMs: number;
  /** Pods that were active at once. */
  readonly pods: number;
  /** Why it is not ok. */
  readonly reasons: readonly string[];
}

interface PodAnswer {
  readonly id: string;
  readonly vmid: number;
  readonly status: string;
  readonly cores: number;
  readonly node: string | null;
  readonly lastError: { readonly code: string; readonly message: string } | null;
}
interface Accepted {
  readonly pod: PodAnswer;
  readonly task: { readonly id: string };
}

/** What the story is played with. */
export interface Stage {
  readonly api: ApiClient;
  readonly db: Database;
  readonly hosts: readonly DemoHost[];
  readonly sampleIntervalSeconds: number;
  readonly startedAtMs: number;
  readonly say: (line: string) => void;
}

const activeTimeoutMs = 60_000;

/** Orders, scales, kills an agent in the middle of an order, destroys, and checks what must hold. */
export async function playStory(stage: Stage): Promise<Report> {
  const plans = ["CLOUD_POD_STARTER", "CLOUD_POD_PREMIUM", "PRO"];
  const ordered = await Promise.all(plans.map((planCode, index) => order(stage, planCode, `demo-${index + 1}`)));
  stage.say(`ordered ${ordered.length} pods`);
  const firstActive = Promise.any(ordered.map(async ({ pod }) => await untilActive(stage, pod.id)));
  await firstActive;
  const firstActivePodMs = Math.round(Date.now() - stage.startedAtMs);
  stage.say(`first active pod after ${firstActivePodMs} ms`);
  for (const { pod } of ordered) await untilActive(stage, pod.id);
  for (const { pod } of ordered) await untilMetered(stage, pod.id);
  stage.say("all pods are active and metered");

  const [scaled, , destroyed] = ordered;
  if (scaled === undefined || destroyed === undefined) throw new Error("the story needs three pods");
  await work(
    stage,
    await stage.api.request<Accepted>("POST", `/api/cloud-pods/${scaled.pod.id}/scale`, {
      planCode: "CLOUD_POD_BUSINESS",
    }),
  );
  stage.say("scaled one pod");

  const fourth = await orderWhileAgentDies(stage);
  stage.say("an order survived kill -9 of its agent");
  await untilMetered(stage, fourth);

  await work(stage, await stage.api.request<Accepted>("POST", `/api/cloud-pods/${destroyed.pod.vmid}/destroy`));
  stage.say("destroyed one pod");
  const active = (await stage.api.request<{ data: PodAnswer[] }>("GET", "/api/cloud-pods?status=active")).data.length;
  return judge(firstActivePodMs, active, await settled(stage));
}

async function order(stage: Stage, planCode: string, hostname: string): Promise<Accepted> {
  const key = `demo-${hostname}-${stage.startedAtMs}`;
  return await orderPod(stage.api, { planCode, hostname }, key, activeTimeoutMs);
}

async function untilActive(stage: Stage, podId: string): Promise<PodAnswer> {
  return await until(`the pod ${podId} is active`, activeTimeoutMs, async () => {
    const pod = await stage.api.request<PodAnswer>("GET", `/api/cloud-pods/${podId}`);
    if (pod.status === "failed") throw new Error(`a pod failed: ${pod.lastError?.code} ${pod.lastError?.message}`);
    return pod.status === "active" ? pod : undefined;
  });
}

async function untilMetered(stage: Stage, podId: string): Promise<void> {
  await until(`the pod ${podId} is metered`, stage.sampleIntervalSeconds * 3_000 + 20_000, async () => {
    const usage = await stage.api.request<{ status: string }>("GET", `/api/cloud-pods/${podId}/usage/realtime`);
    return usage.status === "live" ? true : undefined;
  });
}

async function work(stage: Stage, accepted: Accepted): Promise<void> {
  await until(`the task ${accepted.task.id} is done`, activeTimeoutMs, async () => {
    const task = await stage.api.request<{ state: string; error: { code: string; message: string } | null }>(
      "GET",
      `/api/tasks/${accepted.task.id}`,
    );
    if (task.state === "failed" || task.state === "cancelled")
      throw new Error(`a task failed: ${task.error?.code} ${task.error?.message}`);
    return task.state === "succeeded" ? true : undefined;
  });
}

/** The agent dies while it works on the order's command, and a new one takes over. */
async function orderWhileAgentDies(stage: Stage): Promise<string> {
  const { pod } = await order(stage, "CLOUD_POD_STARTER", "demo-4");
  const host = stage.hosts.find(({ name }) => name === pod.node);
  if (host === undefined) throw new Error(`the order has no host: ${pod.node}`);
  await until("the agent works on the order", 20_000, async () => {
    const [row] = await stage.db.query<{ state: string }>(sql`
      SELECT state FROM node_commands WHERE pod_id = ${pod.id} AND op = 'ensure_container' ORDER BY id LIMIT 1`);
    return row !== undefined && row.state !== "pending" ? row : undefined;
  });
  await host.killAgent();
  await host.startAgent();
  await untilActive(stage, pod.id);
  return pod.id;
}

/** The invariants once every spool has been acknowledged; samples still on their way are not lost yet. */
async function settled(stage: Stage): Promise<Invariants> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const found = await checkInvariants(stage.db, stage.hosts);
    if (faults(found).length === 0 || Date.now() > deadline) return found;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function faults(found: Invariants): string[] {
  return found.samplesStored === 0 ? [...faultsOf(found), "no sample was stored"] : faultsOf(found);
}

function judge(firstActivePodMs: number, pods: number, found: Invariants): Report {
  const reasons = faults(found);
  return { ok: reasons.length === 0, firstActivePodMs, pods, ...found, reasons };
}
