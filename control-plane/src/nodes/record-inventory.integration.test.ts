import {
  ContainerObservation,
  Hello,
  Power,
  type Inventory,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { smallInventory } from "../../../test/support/connected-agent.ts";
import { enrolHost, issuingDeps, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { insertTenants } from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";
import { recordAddress } from "../pods/addresses.ts";
import type { IssuingDeps } from "./node-certificates.ts";
import { listUnmanaged, readNode } from "./node-view.ts";
import { recordInventory } from "./record-inventory.ts";
import { registerHost } from "./register-host.ts";

let db: TestDatabase;
let deps: IssuingDeps;
let tenantId: string;

beforeAll(async () => {
  db = await createTestDatabase();
  deps = await issuingDeps(db.system);
  [tenantId = ""] = await insertTenants(db.system, 1);
});
afterAll(() => db.close());

const record = (host: EnrolledHost, changes: Partial<Inventory>) =>
  recordInventory(db.system, { nodeId: host.nodeId, epoch: 0n }, smallInventory(changes), { onAddress: recordAddress });

const container = (changes: Partial<ContainerObservation>): ContainerObservation =>
  ContainerObservation.fromPartial({ power: Power.POWER_RUNNING, generation: 1n, hostname: "guest", ...changes });

async function placePod(host: EnrolledHost): Promise<{ id: string; vmid: number }> {
  const [row] = await db.system.query<{ id: string; vmid: number }>(sql`
    INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, status, node_id, cores, memory_mb, disk_gb, storage, bridge, template, mac)
    VALUES (${newId()}, ${tenantId}, next_vmid(), 'pod', 'pod', 'local', 'active', ${host.nodeId}, 1, 512, 4, 'local-lvm', 'vmbr0', 'ct:9000', 'BC:24:11:' || upper(substr(md5(random()::text), 1, 6)))
    RETURNING id, vmid`);
  if (row === undefined) throw new Error("no pod");
  return row;
}

async function podRow(id: string) {
  const [row] = await db.system.query<{ power: string; ip: string | null; at: Date | null }>(sql`
    SELECT observed_power AS power, ip, observed_at AS at FROM cloud_pods WHERE id = ${id}`);
  return row;
}

describe("a host's first inventory", () => {
  test("makes its storages and chooses storage and template once", async () => {
    const host = await enrolHost(db.system, deps);
    const storages = [
      {
        storage: "local",
        type: "dir",
        shared: false,
        totalGb: 900,
        usedGb: 1,
        content: ["vztmpl", "backup"],
        available: true,
        backend: "",
      },
      {
        storage: "small",
        type: "lvmthin",
        shared: false,
        totalGb: 100,
        usedGb: 1,
        content: ["rootdir"],
        available: true,
        backend: "",
      },
      {
        storage: "big",
        type: "zfspool",
        shared: false,
        totalGb: 500,
        usedGb: 1,
        content: ["rootdir"],
        available: true,
        backend: "",
      },
    ];
    const containers = [container({ vmid: 9001, template: true }), container({ vmid: 9000, template: true })];
    await record(host, { storages, containers, templateVolumeIds: ["local:vztmpl/debian-12.tar.zst"] });
    const node = await readNode(db.system, host.nodeId);
    expect(node).toMatchObject({ defaultStorage: "big", templateVmid: 9000, templateArchive: null });
    expect(node.storages.map((storage) => [storage.name, storage.holdsRootDisks, storage.totalGb])).toEqual([
      ["big", true, 500],
      ["local", false, 900],
      ["small", true, 100],
    ]);
    await db.system.execute(sql`UPDATE nodes SET default_storage = 'small' WHERE id = ${host.nodeId}`);
    await record(host, { storages: storages.map((storage) => ({ ...storage, totalGb: 2_000 })), containers });
    expect(await readNode(db.system, host.nodeId)).toMatchObject({ defaultStorage: "small", templateVmid: 9000 });
  });

  test("a storage that does not answer or is gone keeps its size and is out of use", async () => {
    const host = await enrolHost(db.system, deps);
    await record(host, {});
    await record(host, {
      storages: [
        {
          storage: "local-lvm",
          type: "lvmthin",
          shared: false,
          totalGb: 0,
          usedGb: 0,
          content: ["rootdir"],
          available: false,
          backend: "",
        },
      ],
    });
    expect((await readNode(db.system, host.nodeId)).storages).toMatchObject([{ totalGb: 500, available: false }]);
    await record(host, { storages: [] });
    expect((await readNode(db.system, host.nodeId)).storages).toMatchObject([{ totalGb: 500, available: false }]);
  });

  test("members of a cluster share one row of a shared storage", async () => {
    const hosts = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
    const shared = [
      {
        storage: "ceph",
        type: "rbd",
        shared: true,
        totalGb: 4_000,
        usedGb: 1,
        content: ["rootdir"],
        available: true,
        backend: "",
      },
    ];
    for (const host of hosts) {
      const hello = Hello.fromPartial({
        clusterName: "prod",
        pveName: "pve",
        capacity: { cpuCores: 8, memoryMb: 1_000 },
      });
      await db.system.transaction((tx) => registerHost(tx, host.nodeId, hello));
      await record(host, { storages: shared });
    }
    const rows = await db.system.query<{ id: string }>(sql`
      SELECT DISTINCT storage_id AS id FROM node_storages WHERE node_id = ANY(${hosts.map((host) => host.nodeId)}::uuid[])`);
    expect(rows).toHaveLength(1);
    expect(await readNode(db.system, hosts[0]?.nodeId ?? "")).toMatchObject({
      cluster: "prod",
      cpu: { total: 8 },
      memoryMb: { total: 1_000 },
    });
  });
});

describe("what a host says of pods", () => {
  test("counts for those placed there, under their generation, and not when it is older", async () => {
    const [host, other] = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
    const pod = await placePod(host);
    const seen = container({ vmid: pod.vmid, podId: pod.id, ip: "10.0.0.5" });
    await record(other, { containers: [seen] });
    await record(host, { containers: [{ ...seen, generation: 0n }] });
    expect(await podRow(pod.id)).toMatchObject({ power: "unknown", ip: null });
    await record(host, { containers: [seen] });
    expect(await podRow(pod.id)).toMatchObject({ power: "running", ip: "10.0.0.5" });
    const early = BigInt(Date.now() - 60_000);
    await record(host, { observedAtMs: early, containers: [{ ...seen, power: Power.POWER_STOPPED }] });
    expect(await podRow(pod.id)).toMatchObject({ power: "running" });
    await record(host, { containers: [] });
    expect(await podRow(pod.id)).toMatchObject({ power: "unknown" });
  });

  test("what is left out is told with its reason", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const dropped: string[] = [];
    const hooks = { onAddress: recordAddress, onDropped: (reason: string) => void dropped.push(reason) };
    const report = (changes: Partial<Inventory>) =>
      recordInventory(db.system, { nodeId: host.nodeId, epoch: 0n }, smallInventory(changes), hooks);
    const seen = container({ vmid: pod.vmid, podId: pod.id });
    await report({ containers: [seen] });
    expect(dropped).toEqual([]);
    await report({ sessionEpoch: 7n });
    await report({ known: false });
    await report({ containers: [{ ...seen, generation: 9n }, container({ vmid: 555, podId: newId() })] });
    await report({ containers: [seen], observedAtMs: BigInt(Date.now() - 60_000) });
    expect(dropped).toEqual(["other_session", "not_trusted_by_host", expect.any(String), expect.any(String), "older"]);
    expect(dropped.slice(2, 4).toSorted()).toEqual(["not_placed_here", "other_generation"]);
  });

  test("nothing follows from an inventory that the host does not trust", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    await record(host, { containers: [container({ vmid: pod.vmid, podId: pod.id })] });
    expect(await record(host, { known: false, quorate: false, containers: [], storages: [] })).toBe(false);
    expect(await podRow(pod.id)).toMatchObject({ power: "running" });
    expect(await readNode(db.system, host.nodeId)).toMatchObject({ quorate: false, storages: [{ available: true }] });
  });

  test("an address that changed is kept with its times", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    for (const ip of ["10.0.0.5", "10.0.0.5", "10.0.0.6", ""])
      await record(host, { containers: [container({ vmid: pod.vmid, podId: pod.id, ip })] });
    const addresses = await db.system.query<{ ip: string; open: boolean }>(sql`
      SELECT ip, used_to IS NULL AS open FROM cloud_pod_addresses WHERE pod_id = ${pod.id} ORDER BY used_from`);
    expect(addresses).toEqual([
      { ip: "10.0.0.5", open: false },
      { ip: "10.0.0.6", open: true },
    ]);
  });
});

describe("strangers", () => {
  test("are listed, counted and forgotten when they are gone; their ids are never given away", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const [next] = await db.system.query<{ vmid: number }>(sql`SELECT last_value + 1 AS vmid FROM vmid_seq`);
    const taken = Number(next?.vmid);
    const elsewhere = newId();
    const containers = [
      container({ vmid: 101 }),
      container({ vmid: taken, podId: elsewhere }),
      container({ vmid: pod.vmid, podId: pod.id }),
      container({ vmid: 555, lock: "create" }),
    ];
    await record(host, { containers, foreignVmids: [taken + 1, pod.vmid] });
    await record(host, { containers, foreignVmids: [taken + 1, pod.vmid] });
    const strangers = await listUnmanaged(db.system, { limit: 10, nodeId: host.nodeId });
    expect(strangers.map(({ vmid, podId, sightings }) => ({ vmid, podId, sightings }))).toEqual([
      { vmid: 101, podId: null, sightings: 2 },
      { vmid: taken, podId: elsewhere, sightings: 2 },
    ]);
    expect(await db.system.query(sql`SELECT next_vmid() AS vmid`)).toEqual([{ vmid: taken + 2 }]);
    expect(await db.system.query(sql`SELECT vmid FROM reserved_vmids WHERE vmid = ${pod.vmid}`)).toEqual([]);
    await record(host, { containers: [] });
    expect(await listUnmanaged(db.system, { limit: 10, nodeId: host.nodeId })).toEqual([]);
  });

  test("a pod that holds room here is none, whatever its home is", async () => {
    const [host, target] = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
    const pod = await placePod(host);
    await record(target, {});
    const arriving = [container({ vmid: pod.vmid, podId: pod.id, generation: 2n })];
    await record(target, { containers: arriving });
    expect(await listUnmanaged(db.system, { limit: 10, nodeId: target.nodeId })).toHaveLength(1);
    await db.system.execute(sql`
      INSERT INTO node_claims (id, tenant_id, pod_id, node_id, storage_id, generation, purpose, cpu, memory_mb, disk_gb)
      SELECT ${newId()}, ${tenantId}, ${pod.id}, node_id, id, 2, 'move', 1, 512, 4 FROM storages WHERE node_id = ${target.nodeId}`);
    await record(target, { containers: arriving });
    expect(await listUnmanaged(db.system, { limit: 10, nodeId: target.nodeId })).toEqual([]);
  });
});
