import { z } from "@hono/zod-openapi";
import { Money } from "@cloudpods/shared/money";
import { counter, money, shownMoney, uuid } from "../http/fields.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { timezone, usdOf, usdText } from "./usage-fields.ts";

const minutes = z.number().openapi({ example: 1_440 });

/** A pod's days as `GET /:pod/usage` shows them. */
export const usageHistoryView = z
  .object({
    podId: uuid,
    period: z.string().openapi({ example: "30 days" }),
    timezone,
    dailyUsage: z.array(
      z.object({
        date: z.string().openapi({ example: "2026-01-31" }),
        cpuAvgPercent: z.number().nullable().openapi({ description: "Of all cores. null: it did not run." }),
        cpuMaxPercent: z.number(),
        cpuP95Percent: z
          .number()
          .nullable()
          .openapi({ description: "Of the day's samples, weighted by time, to 1 %." }),
        memoryAvgMb: z.number().nullable(),
        memoryMaxMb: z.number(),
        diskAvgGb: z.number().nullable(),
        diskMaxGb: z.number(),
        networkInTotalGb: z.number().openapi({ description: "1 GB = 2^30 bytes" }),
        networkOutTotalGb: z.number(),
        networkInBytes: counter,
        networkOutBytes: counter,
        diskIoTotalGb: z.number(),
        uptimeHours: z.number(),
        minutes: z
          .object({ measured: minutes, late: minutes, notRunning: minutes, missing: minutes })
          .openapi({ description: "Sum to the time that the pod existed. Missing time is never billed as usage." }),
        estimatedCost: money,
        estimatedCostUsd: usdText,
      }),
    ),
  })
  .openapi("UsageHistory");

type Day = z.infer<typeof usageHistoryView>["dailyUsage"][number];

/** A day as its row has it: exact decimals come as text. */
interface DayRow {
  readonly date: string;
  readonly cpuAvgPercent: string | null;
  readonly cpuMaxPercent: string;
  readonly cpuP95Percent: number | null;
  readonly memoryAvgMb: string | null;
  readonly memoryMaxMb: string;
  readonly diskAvgGb: string | null;
  readonly diskMaxGb: string;
  readonly networkInTotalGb: string;
  readonly networkOutTotalGb: string;
  readonly networkInBytes: bigint;
  readonly networkOutBytes: bigint;
  readonly diskIoTotalGb: string;
  readonly uptimeHours: string;
  readonly measured: string;
  readonly late: string;
  readonly notRunning: string;
  readonly missing: string;
  readonly cost: string;
  readonly currency: string;
}

/** The last `days` UTC days of a pod of the transaction's tenant, today with what is rolled up so far; oldest first. */
export async function readUsageHistory(
  tx: Queryable,
  podId: string,
  days: number,
  now: Date,
): Promise<z.infer<typeof usageHistoryView>> {
  const today = now.toISOString().slice(0, 10);
  const rows = await tx.query<DayRow>(sql`
    SELECT date::text AS date, cpu_avg_percent AS "cpuAvgPercent", cpu_max_percent AS "cpuMaxPercent", cpu_p95_percent AS "cpuP95Percent",
      memory_avg_mb AS "memoryAvgMb", memory_max_mb AS "memoryMaxMb", disk_avg_gb AS "diskAvgGb", disk_max_gb AS "diskMaxGb",
      network_in_total_gb AS "networkInTotalGb", network_out_total_gb AS "networkOutTotalGb", guest_in_bytes AS "networkInBytes",
      guest_out_bytes AS "networkOutBytes", disk_io_total_gb AS "diskIoTotalGb", uptime_hours AS "uptimeHours",
      measured_minutes AS measured, late_minutes AS late, not_running_minutes AS "notRunning", missing_minutes AS missing,
      estimated_cost AS cost, currency
    FROM tenant_usage_daily
    WHERE pod_id = ${podId} AND date > ${today}::date - ${days}::integer AND date <= ${today}::date ORDER BY date`);
  return { podId, period: `${days} days`, timezone: "UTC", dailyUsage: rows.map(shownDay) };
}

function shownDay(row: DayRow): Day {
  const cost = Money.of(row.cost, row.currency);
  return {
    date: row.date,
    cpuAvgPercent: numberOrNull(row.cpuAvgPercent),
    cpuMaxPercent: Number(row.cpuMaxPercent),
    cpuP95Percent: row.cpuP95Percent,
    memoryAvgMb: numberOrNull(row.memoryAvgMb),
    memoryMaxMb: Number(row.memoryMaxMb),
    diskAvgGb: numberOrNull(row.diskAvgGb),
    diskMaxGb: Number(row.diskMaxGb),
    networkInTotalGb: Number(row.networkInTotalGb),
    networkOutTotalGb: Number(row.networkOutTotalGb),
    networkInBytes: row.networkInBytes,
    networkOutBytes: row.networkOutBytes,
    diskIoTotalGb: Number(row.diskIoTotalGb),
    uptimeHours: Number(row.uptimeHours),
    minutes: {
      measured: Number(row.measured),
      late: Number(row.late),
      notRunning: Number(row.notRunning),
      missing: Number(row.missing),
    },
    estimatedCost: shownMoney(cost),
    ...usdOf("estimatedCostUsd", cost),
  };
}

function numberOrNull(text: string | null): number | null {
  return text === null ? null : Number(text);
}
