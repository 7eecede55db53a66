import { type ApiClient, ApiError } from "../../tools/demo/api-client.ts";
import { restBetweenRequestsMs, until } from "./until.ts";

/** A pod as the API shows it. */
export interface PodAnswer {
  readonly id: string;
  readonly vmid: number;
  readonly status: string;
  readonly power: string;
  readonly desiredPower: string;
  readonly planCode: string | null;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
  readonly ip: string | null;
  readonly mac: string;
  readonly node: string | null;
  readonly lastError: { readonly code: string; readonly message: string } | null;
}

/** A task as the API shows it. */
export interface TaskAnswer {
  readonly id: string;
  readonly type: string;
  readonly state: string;
  readonly step: string;
  readonly percent: number;
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** Answer to everything that takes long. */
export interface Accepted {
  readonly pod: PodAnswer;
  readonly task: TaskAnswer;
}

/** Room for a host that restarts and a lease that must run out. */
const taskDeadlineMs = 170_000;
const endStates = ["succeeded", "failed", "cancelled"];

/** Orders a small pod, on a host of choice where one is named. */
export async function order(api: ApiClient, hostname: string, host?: string): Promise<Accepted> {
  const wish = {
    planCode: "STARTER",
    hostname,
    ...(host === undefined ? {} : { placement: { nodeLabels: { host } } }),
  };
  return await untilPlaced(hostname, () => api.request<Accepted>("POST", "/api/cloud-pods", wish));
}

const missedAgent: ReadonlySet<string> = new Set(["NO_CAPACITY", "NODE_NOT_ONLINE"]);

/**
 * Asks for what needs a place. Nothing comes to a host whose agent is missed, and nothing leaves it: such a refusal is asked
 * again, as its Retry-After says, only sooner.
 */
export async function untilPlaced(what: string, ask: () => Promise<Accepted>): Promise<Accepted> {
  return await until(
    `a place for ${what}`,
    () =>
      ask().catch((error: unknown) => {
        if (error instanceof ApiError && missedAgent.has(error.code)) return undefined;
        throw error;
      }),
    120_000,
    restBetweenRequestsMs,
  );
}

/** Asks something of a pod, such as `stop` or `scale`. */
export async function ask(
  api: ApiClient,
  pod: { readonly id: string },
  what: string,
  body?: unknown,
): Promise<Accepted> {
  return await api.request<Accepted>("POST", `/api/cloud-pods/${pod.id}/${what}`, body);
}

/** The pod as it is now. */
export async function look(api: ApiClient, pod: { readonly id: string }): Promise<PodAnswer> {
  return await api.request<PodAnswer>("GET", `/api/cloud-pods/${pod.id}`);
}

/** Waits for a task to end; what refuses to answer meanwhile is asked again. */
async function ended(api: ApiClient, task: { readonly id: string }): Promise<TaskAnswer> {
  return await until(
    `the end of task ${task.id}`,
    async () => {
      const now = await api.request<TaskAnswer>("GET", `/api/tasks/${task.id}`).catch(() => undefined);
      return now !== undefined && endStates.includes(now.state) ? now : undefined;
    },
    taskDeadlineMs,
    restBetweenRequestsMs,
  );
}

/** Waits for a task that is to succeed. @throws Error with the task's own reason when it does not */
export async function succeeded(api: ApiClient, accepted: Accepted): Promise<PodAnswer> {
  const { state, type, error } = await ended(api, accepted.task);
  if (state !== "succeeded") throw new Error(`task ${type} ${state}: ${error?.code} ${error?.message}`);
  return await look(api, accepted.pod);
}

/** Waits until a pod's usage of the last minutes can be read. */
export async function metered(api: ApiClient, pod: { readonly id: string }): Promise<void> {
  await until(
    `usage of ${pod.id}`,
    async () =>
      (await api.request<{ status: string }>("GET", `/api/cloud-pods/${pod.id}/usage/realtime`)).status === "live",
    90_000,
    restBetweenRequestsMs,
  );
}
