import { z } from "@hono/zod-openapi";
import { timestamp } from "../http/fields.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { findPod } from "../pods/pod.ts";
import { realtimeUsage, type MeasuredInterval } from "./realtime-usage.ts";

const usageView = z.discriminatedUnion("status", [
  z.object({ status: z.literal("no_data") }),
  z.object({
    status: z.literal("live"),
    lastUpdate: timestamp,
    current: z.object({
      cpuPercent: z.number().openapi({ description: "Of all cores of the pod.", example: 12.5 }),
      memoryUsedMb: z.number(),
      memoryTotalMb: z.number(),
      memoryPercent: z.number().nullable(),
      diskUsedGb: z.number(),
      diskTotalGb: z.number(),
      diskPercent: z.number().nullable(),
    }),
    averages: z.object({ cpuPercent5min: z.number() }),
  }),
]);

const windowMinutes = 5;
/** Five minutes of one-second samples, the shortest that a host can be set to. */
const samplesMax = 300;

/** Routes about what pods use. */
export function registerMeteringRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod/usage/realtime",
    summary: "What a pod used in the last five minutes",
    tags: ["usage"],
    access: { scope: "READ" },
    responses: { 200: usageView },
    async handler({ params }, ctx) {
      const intervals = await ctx.inTenant(async (tx) => {
        const pod = await findPod(tx, ctx.tenantId, params.pod);
        return await recentIntervals(tx, pod.id, ctx.now);
      });
      return { status: 200, body: realtimeUsage(intervals) };
    },
  });
}

/** Samples of a pod of the transaction's tenant that ended in the last five minutes. */
async function recentIntervals(tx: Queryable, podId: string, now: Date): Promise<MeasuredInterval[]> {
  return await tx.query<MeasuredInterval>(sql`
    SELECT extract(epoch FROM start_time)::float8 * 1000 AS "startMs", extract(epoch FROM sample_time)::float8 * 1000 AS "endMs",
      cpu_usage_us AS "cpuUsageUs", memory_byte_ms AS "memoryByteMs", disk_byte_ms AS "diskByteMs", cores,
      memory_mb AS "memoryMb", disk_gb AS "diskGb"
    FROM tenant_usage_samples
    WHERE pod_id = ${podId} AND sample_time > ${now}::timestamptz - make_interval(mins => ${windowMinutes})
    ORDER BY sample_time DESC LIMIT ${samplesMax}`);
}
