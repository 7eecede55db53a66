import type { ApiClient } from "./api-client.ts";

/** A drain as the control plane tells it. */
export interface DrainAnswer {
  readonly state: string;
  readonly outcome: string | null;
  readonly startedAt: string;
  readonly finishedAt: string | null;
  readonly downtimeMs: { readonly p50: number; readonly p95: number; readonly max: number } | null;
  readonly pods: readonly {
    readonly name: string;
    readonly state: string;
    readonly target: string | null;
    readonly strategy: string | null;
    readonly blocker: { readonly message: string } | null;
  }[];
}

/** The host's last drain. */
export async function lookAtDrain(admin: ApiClient, host: string): Promise<DrainAnswer> {
  return await admin.request<DrainAnswer>("GET", `/api/nodes/${host}/drain`);
}

export function isOver({ state }: DrainAnswer): boolean {
  return state !== "planning" && state !== "moving";
}

/** Why a drain ended as it did, in words. */
export function whyNot({ outcome, pods }: DrainAnswer): string {
  return [
    outcome,
    ...pods.flatMap(({ name, blocker }) => (blocker === null ? [] : [`${name}: ${blocker.message}`])),
  ].join("; ");
}
