import { newId } from "@cloudpods/shared/ids";
import { SampleBatch, type Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { Queryable } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";

/** A node with the pods that are placed on it. */
export interface FleetNode {
  readonly nodeId: string;
  readonly pods: readonly FleetPod[];
}

/** A placed pod. */
export interface FleetPod {
  readonly podId: string;
  readonly vmid: number;
  readonly tenantId: string;
}

/** Inserts nodes with placed pods of one new tenant; they were placed 60 days ago. */
export async function seedFleet(
  database: Queryable,
  size: { readonly nodes: number; readonly podsPerNode: number },
): Promise<FleetNode[]> {
  const tenantId = newId();
  await database.execute(
    sql`INSERT INTO tenants (id, slug, name) VALUES (${tenantId}, ${`t-${tenantId}`}, 'Telemetry')`,
  );
  const [first] = await database.query<{ vmid: number }>(sql`SELECT next_vmid() AS vmid`);
  let vmid = (first?.vmid ?? 0) + Math.floor(Math.random() * 100_000_000);
  const fleet = Array.from({ length: size.nodes }, () => ({
    nodeId: newId(),
    pods: Array.from({ length: size.podsPerNode }, () => ({ podId: newId(), vmid: vmid++, tenantId })),
  }));
  await database.execute(sql`
    INSERT INTO nodes (id, name, region) SELECT id, id::text, 'test' FROM unnest(${fleet.map((node) => node.nodeId)}::uuid[]) AS id`);
  await database.execute(
    sql`INSERT INTO node_status (node_id) SELECT unnest(${fleet.map((node) => node.nodeId)}::uuid[])`,
  );
  const placed = fleet.flatMap((node) => node.pods.map((pod) => ({ ...pod, nodeId: node.nodeId })));
  await database.execute(sql`
    INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, node_id, cores, memory_mb, disk_gb, storage, bridge, template, mac)
    SELECT id, ${tenantId}, vmid, id::text, id::text, 'test', node_id, 2, 1024, 20, 'local', 'vmbr0', 'ct:9000', id::text
    FROM unnest(${placed.map((pod) => pod.podId)}::uuid[], ${placed.map((pod) => pod.vmid)}::integer[], ${placed.map((pod) => pod.nodeId)}::uuid[])
      AS v (id, vmid, node_id)`);
  await database.execute(sql`
    INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation, placed_from)
    SELECT gen_random_uuid(), tenant_id, id, node_id, vmid, 1, now() - interval '60 days' FROM cloud_pods WHERE tenant_id = ${tenantId}`);
  return fleet;
}

/** A plausible minute of a pod, ending at `endMs`. */
export function sampleOf(pod: FleetPod, endMs: number, changes: Partial<Sample> = {}): Sample {
  return {
    podId: pod.podId,
    vmid: pod.vmid,
    startMs: BigInt(endMs - 60_000),
    endMs: BigInt(endMs),
    runningMs: 60_000n,
    cpuUsageUs: BigInt(1_000_000 + (endMs % 50_000_000)),
    cpuMaxBasisPoints: 3_000,
    memoryByteMs: 500_000_000n * 60_000n,
    memoryMaxBytes: 600_000_000n,
    diskByteMs: 4_000_000_000n * 60_000n,
    diskMaxBytes: 4_000_000_000n,
    guestInBytes: BigInt(endMs % 10_000_000),
    guestOutBytes: BigInt(endMs % 1_000_000),
    ioReadBytes: 8_192_000n,
    ioWriteBytes: 4_096_000n,
    sampleCount: 1,
    cores: 2,
    memoryMb: 1024,
    diskGb: 20,
    incarnation: "6f2a9c1e:4711:eth0/12",
    ...changes,
  };
}

/** A batch of one minute of all pods of a node, or of the samples given. */
export function batchOf(
  node: FleetNode,
  spoolId: string,
  range: { readonly from: number; readonly to?: number },
  endMs: number,
  changes: Partial<SampleBatch> = {},
): SampleBatch {
  return {
    spoolId,
    seqFrom: BigInt(range.from),
    seqTo: BigInt(range.to ?? range.from),
    lowestUnackedSeq: 1n,
    completeUntilMs: BigInt(endMs),
    bootId: "0b7d1a52-3f0e-4e57-9d5a-6a4f5f1f2a11",
    coversFromMs: BigInt(endMs - 60_000),
    coversToMs: BigInt(endMs),
    unreadableVmids: [],
    samples: node.pods.map((pod) => sampleOf(pod, endMs)),
    unsynchronised: false,
    ...changes,
  };
}

/** The bytes of a batch as they travel. */
export function payloadOf(batch: SampleBatch): Uint8Array {
  return SampleBatch.encode(batch).finish();
}
