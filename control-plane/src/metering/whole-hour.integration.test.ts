import { afterAll, beforeAll, expect, test } from "vitest";
import type { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, seedFleet, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { rollUpHour } from "./roll-up-hours.ts";
import { verifyMetering } from "./verify-metering.ts";

const hour = new Date("2026-01-05T10:00:00Z");
const after = (minutes: number) => new Date(hour.getTime() + minutes * 60_000);
/** More than are read pod by pod. */
const crowd = 2_001;

let db: TestDatabase;
let fleet: DeliveringFleet;
let pods: readonly FleetPod[];

beforeAll(async () => {
  db = await createTestDatabase();
  fleet = await deliveringFleet(db, { nodes: 2, podsPerNode: 4, since: hour });
  pods = fleet.nodes.flatMap((node) => node.pods);
});
afterAll(async () => {
  await fleet.close();
  await db.close();
});

/** What hosts measure when not all is well, one pod for each: sums beyond 2^53 and a change of cores, a gap, minutes half run, none run. */
function oddity(pod: FleetPod, endMs: number): Partial<Sample> {
  const minute = (endMs - hour.getTime()) / 60_000;
  switch (pods.indexOf(pod)) {
    case 0:
      return {
        memoryByteMs: 2n ** 61n / 60n,
        diskByteMs: 2n ** 62n + 1n,
        guestInBytes: 2n ** 53n + 1n,
        cores: minute > 30 ? 4 : 2,
      };
    case 1:
      return minute === 20 ? { startMs: BigInt(endMs - 59_500), runningMs: 59_500n } : {};
    case 2:
      return minute % 2 === 0 ? { runningMs: 50_000n } : {};
    case 3:
      return { runningMs: 0n, cpuUsageUs: 0n };
    default:
      return { cpuUsageUs: BigInt(minute) * 2_000_000n };
  }
}

async function deliverOddities(): Promise<void> {
  const [first, second] = fleet.nodes as [FleetNode, FleetNode];
  for (const node of [first, second])
    await fleet.deliverHour(node, hour, (pod, endMs) => sampleOf(pod, endMs, oddity(pod, endMs)));
  // The first pod of the second host was measured by the first one too, half a minute apart.
  await db.system.execute(sql`
    INSERT INTO cloud_pod_usage_samples
    SELECT s.pod_id, s.sample_time + interval '30 seconds', o.spool_no, s.seq, s.start_time + interval '30 seconds', running_ms, cpu_usage_us, cpu_max_basis_points,
      memory_byte_ms, memory_max_bytes, disk_byte_ms, disk_max_bytes, guest_in_bytes, guest_out_bytes, io_read_bytes, io_write_bytes, sample_count, cores, memory_mb, disk_gb, incarnation
    FROM cloud_pod_usage_samples s JOIN node_spools o ON o.node_id = ${first.nodeId}
    WHERE s.pod_id = ${second.pods[0]?.podId} AND s.sample_time > ${after(55)}`);
}

async function figures(): Promise<unknown[]> {
  return await db.system.query(sql`
    SELECT to_jsonb(h) - 'rolled_at' AS figures FROM cloud_pod_usage_hourly h WHERE hour_start = ${hour} AND pod_id = ANY(${pods.map((pod) => pod.podId)}::uuid[]) ORDER BY pod_id`);
}

test("an hour that is read in one go has the figures of one that is read pod by pod", async () => {
  await deliverOddities();
  for (const pod of pods) await allocate(db.system, pod, { from: after(-90) });
  await rollUpHour(db.system, hour, after(66));
  const podByPod = await figures();
  expect(podByPod).toHaveLength(pods.length);

  const [crowded] = await seedFleet(db.system, { nodes: 1, podsPerNode: crowd });
  await db.system.transaction(async (tx) => {
    // A busy machine takes longer for so many than a statement may.
    await tx.execute(sql`SET LOCAL statement_timeout = 0`);
    await tx.execute(sql`
      INSERT INTO cloud_pod_allocations (id, tenant_id, pod_id, valid, billing_mode, cores, memory_mb, disk_gb)
      SELECT gen_random_uuid(), tenant_id, id, tstzrange(${after(-90)}, NULL), 'metered', 2, 1024, 20 FROM cloud_pods WHERE node_id = ${crowded?.nodeId}`);
  });
  await db.system.execute(
    sql`INSERT INTO usage_dirty_hours (hour_start, node_id) SELECT ${hour}, unnest(${fleet.nodes.map((node) => node.nodeId)}::uuid[])`,
  );
  const { pods: made } = await rollUpHour(db.system, hour, after(66));
  expect(made).toBe(crowd + pods.length);
  expect(await figures()).toEqual(podByPod);
  expect(
    (await verifyMetering(db.system, "2026-01")).findings.filter(({ check }) => check === "samples-hours"),
  ).toEqual([]);
});
