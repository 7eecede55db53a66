import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { checkInvariants } from "../../tools/demo/check-invariants.ts";
import type { DemoHost } from "../../tools/demo/demo-hosts.ts";
import type { GuestLoad, Truth } from "../simulated-host/host.ts";
import { until } from "./until.ts";

/** A guest that does everything, at rates that no rounding can hide. */
export const workingLoad: GuestLoad = {
  cpuFraction: 0.3,
  memoryMb: 90,
  netInBps: 3_000_017,
  netOutBps: 1_000_003,
  ioReadBps: 500_009,
  ioWriteBps: 700_001,
};

const silence: GuestLoad = { ...workingLoad, cpuFraction: 0, netInBps: 0, netOutBps: 0, ioReadBps: 0, ioWriteBps: 0 };

/** Figures that can be held against each other. */
export type Consumption = Readonly<
  Record<"cpuUsec" | "netInBytes" | "netOutBytes" | "ioReadBytes" | "ioWriteBytes", bigint>
>;

/**
 * Silences a pod and waits until what is stored of it stands still: then it must be what the host says
 * that the pod consumed in all its lives, to the byte.
 */
export async function consumption(
  db: Database,
  host: DemoHost,
  pod: { readonly id: string; readonly vmid: number },
): Promise<{ readonly stored: Consumption; readonly truth: Consumption }> {
  await host.simulated.setLoad(pod.vmid, silence);
  // The simulated kernel brings its files up to the present when it can; a sample counts from then on.
  const used = join(host.simulated.paths.cgroupRoot, "lxc", String(pod.vmid), "cpu.stat");
  await until(
    `counters of ${pod.vmid} that stand still`,
    async () => {
      const { cpuUsec } = await host.simulated.truth(pod.vmid);
      return (await readFile(used, "utf8")).includes(`usage_usec ${cpuUsec}\n`);
    },
    60_000,
  );
  const silentSince = new Date();
  await until(
    `samples of ${pod.id} after ${silentSince.toISOString()}`,
    async () => {
      const [row] = await db.query<{ last: Date | null }>(
        // Each sample covers the time since the one before: one that began in the silence closes the account.
        sql`SELECT max(start_time) AS last FROM cloud_pod_usage_samples WHERE pod_id = ${pod.id}`,
      );
      return (row?.last?.getTime() ?? 0) > silentSince.getTime() + 1_000;
    },
    60_000,
  );
  await until(
    "the samples before the last one",
    async () => (await checkInvariants(db, [host])).samplesLost === 0,
    60_000,
  );
  return { stored: await storedConsumption(db, pod.id), truth: pick(await host.simulated.truth(pod.vmid)) };
}

async function storedConsumption(db: Database, podId: string): Promise<Consumption> {
  const [row] = await db.query<Consumption>(sql`
    SELECT coalesce(sum(cpu_usage_us), 0)::bigint AS "cpuUsec", coalesce(sum(guest_in_bytes), 0)::bigint AS "netInBytes",
      coalesce(sum(guest_out_bytes), 0)::bigint AS "netOutBytes", coalesce(sum(io_read_bytes), 0)::bigint AS "ioReadBytes",
      coalesce(sum(io_write_bytes), 0)::bigint AS "ioWriteBytes"
    FROM cloud_pod_usage_samples WHERE pod_id = ${podId}`);
  if (row === undefined) throw new Error("a sum has a row");
  return row;
}

function pick({ cpuUsec, netInBytes, netOutBytes, ioReadBytes, ioWriteBytes }: Truth): Consumption {
  return { cpuUsec, netInBytes, netOutBytes, ioReadBytes, ioWriteBytes };
}
