import { openDatabase } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { seedPlans } from "../../control-plane/src/plans/seed-plans.ts";
import { makePerson, makeTenant, send } from "../support/people.ts";
import { buildWholeTestApp } from "../support/whole-app.ts";

/** What whole orders came to. */
export interface OrderFigures {
  readonly ordersPerSecond: number;
  readonly orderP50Ms: number;
  readonly orderP99Ms: number;
}

const owners = 8;

/**
 * Whole orders of one replica, as `POST /api/cloud-pods` answers them: sign-in, quota, pod, task, command, placement and
 * audit row, committed. Everything but the socket. As many at a time as there are owners.
 */
export async function measureOrders(systemUrl: string, apiUrl: string, seconds: number): Promise<OrderFigures> {
  const system = openDatabase({ url: systemUrl, applicationName: "bench-orders", connectionsMax: owners });
  const api = openDatabase({ url: apiUrl, applicationName: "bench-orders", connectionsMax: owners });
  const databases = { systemUrl, apiUrl, system, api, close: async () => {} };
  const { app, close } = await buildWholeTestApp(databases);
  try {
    await system.transaction(seedPlans);
    const headers = await Promise.all(
      Array.from({ length: owners }, async () => {
        const tenantId = await makeTenant(databases);
        await system.execute(sql`
          INSERT INTO cloud_pod_quotas (tenant_id, max_cloud_pods, max_cpu_cores, max_ram_mb, max_disk_gb)
          VALUES (${tenantId}, 1000000, 1000000, 1000000000, 100000000)`);
        return (await makePerson(databases, app, { tenants: { [tenantId]: "owner" } })).headers;
      }),
    );
    const latenciesMs: number[] = [];
    const lane = async (own: Readonly<Record<string, string>>, untilMs: number, note: boolean): Promise<void> => {
      while (performance.now() < untilMs) {
        const beganMs = performance.now();
        const body = { planCode: "STARTER", hostname: "shop", region: "eu" };
        const { status, text } = await send(app, "POST", "/api/cloud-pods", { headers: own, body });
        if (status !== 202) throw new Error(`an order was answered ${status}: ${text}`);
        if (note) latenciesMs.push(performance.now() - beganMs);
      }
    };
    const run = async (forSeconds: number, note: boolean): Promise<void> => {
      const untilMs = performance.now() + forSeconds * 1_000;
      await Promise.all(headers.map((own) => lane(own, untilMs, note)));
    };
    await run(2, false);
    await run(seconds, true);
    const sorted = latenciesMs.toSorted((a, b) => a - b);
    const at = (share: number) => Number((sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(2));
    return { ordersPerSecond: Math.round(sorted.length / seconds), orderP50Ms: at(0.5), orderP99Ms: at(0.99) };
  } finally {
    await close();
    await Promise.all([system.close(), api.close()]);
  }
}
