import type { Database, Queryable, Transaction } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { Allocation, PodStory, Story } from "./usage-truth/story.ts";

/** Writes what is known before a story begins: tenants, hosts, pods without a place, and all prices. */
export async function recordBeginning(db: Database, story: Story): Promise<void> {
  await db.transaction(async (tx) => {
    for (const { tenantId, currency, pricingName } of story.tenants)
      await tx.execute(sql`
        INSERT INTO tenants (id, slug, name, currency, pricing_name)
        VALUES (${tenantId}, ${`t-${tenantId}`}, 'Story', ${currency}, ${pricingName ?? null})`);
    for (const { nodeId } of story.hosts) {
      await tx.execute(sql`INSERT INTO nodes (id, name, region) VALUES (${nodeId}, ${nodeId}, 'story')`);
      await tx.execute(sql`INSERT INTO node_status (node_id) VALUES (${nodeId})`);
    }
    for (const pod of story.pods)
      await tx.execute(sql`
        INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, node_id, cores, memory_mb, disk_gb, storage, bridge, template, mac)
        VALUES (${pod.podId}, ${tenantOf(story, pod)}, ${pod.vmid}, ${pod.podId}, ${pod.podId}, 'story', ${nodeOf(story, pod, 0)}, 1, 512, 5, 'local', 'vmbr0', 'ct:9000', ${pod.podId})`);
    await recordPrices(tx, story);
  });
}

async function recordPrices(tx: Queryable, story: Story): Promise<void> {
  await tx.execute(sql`DELETE FROM cloud_pod_pricing`);
  for (const list of story.priceLists)
    await tx.execute(sql`
      INSERT INTO cloud_pod_pricing (name, currency, is_default, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_in_gb, network_in_free,
        network_out_gb, effective_from, effective_until)
      VALUES (${list.name}, ${list.currency}, ${list.isDefault}, ${list.cpuPerHour}, ${list.memoryGbPerHour}, ${list.diskGbPerMonth}, ${list.networkInGb},
        ${list.networkInFree}, ${list.networkOutGb}, ${new Date(list.fromMs)}, ${new Date(list.toMs)})`);
  for (const plan of story.plans) {
    await tx.execute(sql`
      INSERT INTO cloud_pod_plans (code, name, family, cores, memory_mb, disk_gb, bandwidth_gb, overage_policy)
      VALUES (${plan.code}, ${plan.code}, 'shared', 1, 512, 5, ${plan.bandwidthGb ?? null}, ${plan.overage})`);
    for (const { currency, amount, fromMs, toMs } of plan.prices)
      await tx.execute(sql`
        INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid)
        VALUES (gen_random_uuid(), ${plan.code}, ${currency}, ${amount}, tstzrange(${new Date(fromMs)}, ${new Date(toMs)}))`);
  }
}

/** Something that the control plane knows from an instant on. Writing it twice changes nothing. */
interface Change {
  readonly atMs: number;
  write(tx: Transaction): Promise<void>;
}

/** Writes what happens to pods and hosts in the story, up to an instant. */
export interface StoryRecords {
  recordUpTo(db: Database, atMs: number): Promise<void>;
}

/** Makes the records of a story. */
export function storyRecords(story: Story): StoryRecords {
  const changes = [...hostChanges(story), ...story.pods.flatMap((pod) => podChanges(story, pod))].toSorted(
    (one, other) => one.atMs - other.atMs,
  );
  let written = 0;
  return {
    async recordUpTo(db, atMs) {
      const due = changes.slice(written).filter((change) => change.atMs <= atMs);
      if (due.length === 0) return;
      await db.transaction(async (tx) => {
        for (const change of due) await change.write(tx);
        // A change also marks the last days by the server's clock, which in a story are a far future.
        await tx.execute(
          sql`DELETE FROM usage_dirty_hours WHERE hour_start > ${new Date(story.toMs)}::timestamptz + interval '60 days'`,
        );
      });
      written += due.length;
    },
  };
}

/** Who watches the hosts finds one offline, and online again. */
function hostChanges(story: Story): Change[] {
  const state = (nodeId: string, name: string, atMs: number): Change => ({
    atMs,
    write: async (tx) =>
      void (await tx.execute(
        sql`UPDATE node_status SET state = ${name}, state_since = ${new Date(atMs)} WHERE node_id = ${nodeId} AND state <> ${name}`,
      )),
  });
  return story.hosts.flatMap(({ nodeId, offline }) =>
    offline.flatMap((span) => [state(nodeId, "offline", span.fromMs), state(nodeId, "online", span.toMs)]),
  );
}

function podChanges(story: Story, pod: PodStory): Change[] {
  const allocations = pod.allocations.flatMap((allocation, index) => {
    const ends = { atMs: allocation.toMs, write: (tx: Transaction) => endAllocation(tx, pod, allocation) };
    return [{ atMs: allocation.fromMs, write: (tx: Transaction) => beginAllocation(tx, story, pod, index) }, ends];
  });
  const stays = pod.stays.flatMap((stay, index) => [
    {
      atMs: stay.fromMs,
      write: async (tx: Transaction) =>
        void (await tx.execute(sql`
          INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation, placed_from)
          VALUES (gen_random_uuid(), ${tenantOf(story, pod)}, ${pod.podId}, ${nodeOf(story, pod, index)}, ${pod.vmid}, ${index + 1}, ${new Date(stay.fromMs)})
          ON CONFLICT (pod_id, generation) DO NOTHING`)),
    },
    {
      atMs: stay.toMs,
      write: async (tx: Transaction) =>
        void (await tx.execute(
          sql`UPDATE cloud_pod_placements SET placed_to = ${new Date(stay.toMs)} WHERE pod_id = ${pod.podId} AND generation = ${index + 1}`,
        )),
    },
  ]);
  return [...allocations, ...stays];
}

async function beginAllocation(tx: Transaction, story: Story, pod: PodStory, index: number): Promise<void> {
  const allocation = pod.allocations[index];
  const before = pod.allocations[index - 1];
  if (allocation === undefined) throw new Error("there is no such allocation");
  if (before?.toMs === allocation.fromMs) await endAllocation(tx, pod, before);
  await tx.execute(sql`
    INSERT INTO cloud_pod_allocations (id, tenant_id, pod_id, valid, plan_code, billing_mode, cores, memory_mb, disk_gb)
    SELECT gen_random_uuid(), ${tenantOf(story, pod)}, ${pod.podId}, tstzrange(${new Date(allocation.fromMs)}, NULL), ${allocation.planCode ?? null},
      ${allocation.planCode === undefined ? "metered" : "plan"}, ${allocation.cores}, ${allocation.memoryMb}, ${allocation.diskGb}
    WHERE NOT EXISTS (SELECT FROM cloud_pod_allocations a WHERE a.pod_id = ${pod.podId} AND lower(a.valid) = ${new Date(allocation.fromMs)})`);
}

async function endAllocation(tx: Transaction, pod: PodStory, { fromMs, toMs }: Allocation): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_allocations SET valid = tstzrange(lower(valid), ${new Date(toMs)})
    WHERE pod_id = ${pod.podId} AND lower(valid) = ${new Date(fromMs)} AND upper_inf(valid)`);
}

function tenantOf(story: Story, pod: PodStory): string {
  return story.tenants[pod.tenant]?.tenantId ?? "";
}

function nodeOf(story: Story, pod: PodStory, stay: number): string {
  return story.hosts[pod.stays[stay]?.host ?? 0]?.nodeId ?? "";
}
