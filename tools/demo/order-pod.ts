import { type ApiClient, ApiError, until } from "./api-client.ts";

/** Refusals that end by themselves: a host whose agent is missed for a moment takes nothing, and a busy machine answers late. */
const isPassing: ReadonlySet<string> = new Set(["IDEMPOTENCY_IN_PROGRESS", "NO_CAPACITY", "DEADLINE_EXCEEDED"]);

/** Orders a pod; one whose answer is late, or that finds no place for a moment, is asked for again with the same key and made once. */
export async function orderPod<Accepted>(
  api: ApiClient,
  wish: { readonly planCode: string; readonly hostname: string; readonly template?: string },
  idempotencyKey: string,
  timeoutMs: number,
): Promise<Accepted> {
  return await until(`${wish.hostname} is ordered`, timeoutMs, async () => {
    try {
      return await api.request<Accepted>("POST", "/api/cloud-pods", wish, { "idempotency-key": idempotencyKey });
    } catch (error) {
      if (error instanceof ApiError && !isPassing.has(error.code)) throw error;
      return undefined;
    }
  });
}
