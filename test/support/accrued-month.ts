import { Money } from "@cloudpods/shared/money";
import {
  costParts,
  type AccruedMonth,
  type CostPart,
  type PartAmounts,
} from "../../control-plane/src/rating/cost-parts.ts";

/** What a test says of a pod's month; parts that are not named cost nothing. */
export interface AccruedPodWish {
  readonly podId: string;
  readonly parts: Readonly<Partial<Record<CostPart, string>>>;
  readonly guestOutBytes?: bigint;
  readonly uptimeMs?: bigint;
}

/** An accrual whose sums are those of its pods. */
export function accruedMonth(at: Date, wishes: readonly AccruedPodWish[], currency = "USD"): AccruedMonth {
  const perPod = wishes.map(({ podId, parts, guestOutBytes = 0n, uptimeMs = 0n }) => {
    const perPart = amounts((part) => Money.of(parts[part] ?? "0", currency));
    return {
      podId,
      podName: `name of ${podId}`,
      total: total(perPart, currency),
      perPart,
      guestOutBytes,
      planOutBytes: 0n,
      uptimeMs,
    };
  });
  const perPart = amounts((part) =>
    Money.sum(
      perPod.map((pod) => pod.perPart[part]),
      currency,
    ),
  );
  return { currency, yearMonth: at.toISOString().slice(0, 7), at, total: total(perPart, currency), perPart, perPod };
}

function amounts(of: (part: CostPart) => Money): PartAmounts {
  return {
    cpu: of("cpu"),
    memory: of("memory"),
    disk: of("disk"),
    networkIn: of("networkIn"),
    networkOut: of("networkOut"),
    plan: of("plan"),
    overage: of("overage"),
  };
}

function total(perPart: PartAmounts, currency: string): Money {
  return Money.sum(
    costParts.map((part) => perPart[part]),
    currency,
  );
}
