import type { Money } from "@cloudpods/shared/money";

/** What a cost is made of. Plan pods have `plan` and `overage`, metered pods the others. */
export const costParts = ["cpu", "memory", "disk", "networkIn", "networkOut", "plan", "overage"] as const;
export type CostPart = (typeof costParts)[number];

/** An amount for each part. */
export type PartAmounts = Readonly<Record<CostPart, Money>>;

/** What one pod cost since the month began (UTC). */
export interface AccruedPod {
  readonly podId: string;
  readonly podName: string;
  readonly total: Money;
  readonly perPart: PartAmounts;
  /** The guest's outgoing traffic of the month, billable or not. */
  readonly guestOutBytes: bigint;
  /** What of it went out under a plan: counts against the plan's gigabytes. */
  readonly planOutBytes: bigint;
  readonly uptimeMs: bigint;
}

/** What a tenant's pods cost since the month began (UTC). */
export interface AccruedMonth {
  readonly currency: string;
  /** "2026-01" */
  readonly yearMonth: string;
  readonly at: Date;
  /** To the last of ten places; `rounded()` is what would be paid. */
  readonly total: Money;
  readonly perPart: PartAmounts;
  readonly perPod: readonly AccruedPod[];
}
