import { Money } from "../../shared/src/money.ts";
import type { accrueMonth } from "../../control-plane/src/rating/accrual.ts";
import { costParts, type AccruedMonth, type PartAmounts } from "../../control-plane/src/rating/cost-parts.ts";

/** What one tenant has accrued, as a test wants it. */
export interface AccruedWish {
  readonly spend?: string;
  readonly currency?: string;
  /** Outgoing bytes of the month by pod. */
  readonly outBytes?: Readonly<Record<string, bigint>>;
}

/** Accrues what the test says at that moment, for tests of what follows from it. */
export function accrueAsTold(told: (tenantId: string, at: Date) => AccruedWish): typeof accrueMonth {
  return async (_db, tenantIds, at) =>
    await Promise.resolve(new Map(tenantIds.map((tenantId) => [tenantId, monthOf(told(tenantId, at), at)])));
}

function monthOf({ spend = "0", currency = "USD", outBytes = {} }: AccruedWish, at: Date): AccruedMonth {
  const zero = Money.zero(currency);
  const total = Money.of(spend, currency);
  const nothing = Object.fromEntries(costParts.map((part) => [part, zero])) as PartAmounts; // every part is there
  return {
    currency,
    yearMonth: at.toISOString().slice(0, 7),
    at,
    total,
    perPart: { ...nothing, plan: total },
    perPod: Object.entries(outBytes).map(([podId, guestOutBytes]) => ({
      podId,
      podName: podId,
      total: zero,
      perPart: nothing,
      guestOutBytes,
      planOutBytes: guestOutBytes,
      uptimeMs: 0n,
    })),
  };
}
