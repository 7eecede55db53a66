import type { TenantNews } from "../notifications/notify-tenant.ts";

/** A mark of a pod's allowance that is reached. */
export interface ReachedMark {
  readonly id: string;
  readonly tenantId: string;
  readonly name: string;
  readonly vmid: number;
  readonly usedBytes: bigint;
  readonly allowanceBytes: bigint;
  readonly yearMonth: string;
  readonly percent: number;
  readonly overagePolicy: "throttle" | "charge" | "none";
}

const beyond = {
  throttle: "Beyond it the pod's network is slow until the month turns.",
  charge: "What goes beyond it is charged by the gigabyte.",
  none: "What goes beyond it costs nothing.",
} as const;

/** News of a mark that is reached. */
export function bandwidthNews(mark: ReachedMark): TenantNews {
  const gb = (bytes: bigint): string => (Number(bytes / 2n ** 20n) / 1_024).toFixed(1);
  return {
    tenantId: mark.tenantId,
    dedupeKey: `bandwidth:${mark.id}:${mark.yearMonth}:${mark.allowanceBytes}:${mark.percent}`,
    email: {
      subject: `${mark.name} has used ${mark.percent} % of its traffic for ${mark.yearMonth}`,
      text:
        `The pod ${mark.name} (${mark.vmid}) has sent ${gb(mark.usedBytes)} GB of its ${gb(mark.allowanceBytes)} GB ` +
        `in ${mark.yearMonth} (UTC). ${beyond[mark.overagePolicy]}\n`,
    },
    webhook: {
      event: "bandwidth.mark_reached",
      data: {
        podId: mark.id,
        vmid: mark.vmid,
        yearMonth: mark.yearMonth,
        percent: mark.percent,
        usedBytes: String(mark.usedBytes),
        allowanceBytes: String(mark.allowanceBytes),
        overagePolicy: mark.overagePolicy,
      },
    },
  };
}
