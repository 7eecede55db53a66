import { newId } from "@cloudpods/shared/ids";
import { ContainerObservation, Inventory } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { expect, test } from "vitest";
import { insertFleet } from "../../../test/support/placement-fleet.ts";
import { PodsOverHttp } from "../../../test/support/pods-over-http.ts";
import { keepInventory } from "../nodes/latest-inventory.ts";
import { sql } from "../platform/sql.ts";

const bench = new PodsOverHttp();

/** Everything that an order or a change would write. */
async function traces(): Promise<unknown> {
  const of = (table: ReturnType<typeof sql>) =>
    bench.db.system.query(sql`SELECT t::text FROM ${table} t WHERE tenant_id = ${bench.tenantId} ORDER BY 1`);
  return [
    await of(sql`cloud_pods`),
    await of(sql`cloud_pod_provisioning_tasks`),
    await of(sql`node_claims`),
    await of(sql`node_commands`),
    await of(sql`subscriptions`),
    await of(sql`cloud_pod_quotas`),
    await bench.db.system.query(sql`SELECT last_value FROM vmid_seq`),
  ];
}

test("a host that does not answer leaves the rest of the plan, and nothing is written", async () => {
  // Nobody has said what hosts use: they are asked for what placement finds on them.
  await bench.db.system.execute(
    sql`UPDATE nodes SET default_storage = NULL, template_vmid = NULL, template_archive = NULL`,
  );
  const pod = await bench.running();
  const before = await traces();
  const { nodeName, storage, template } = await bench.podNow(pod.id);
  const [ordered, scaled, destroyed] = await Promise.all([
    bench.ask(bench.customer, "POST", "?dryRun=true", { planCode: "STARTER", hostname: "new" }),
    bench.ask(bench.customer, "POST", `/${pod.id}/scale?dryRun=true`, { planCode: "PREMIUM" }),
    bench.ask(bench.customer, "DELETE", `/${pod.id}?dryRun=true`),
  ]);
  const silent = { dryRun: true, commands: null, commandsReason: expect.stringContaining("did not answer") };
  const placed = { node: nodeName, hosts: null };
  expect(ordered).toMatchObject({
    status: 200,
    json: { ...silent, quota: { allowed: true }, placement: placed, price: { amount: "1.49", per: "month" } },
  });
  expect(scaled).toMatchObject({
    status: 200,
    json: { ...silent, quota: { allowed: true }, placement: placed, price: { amount: "2.49", per: "month" } },
  });
  expect(destroyed).toMatchObject({ status: 200, json: { ...silent, quota: null, placement: null, price: null } });
  const [asked] = await bench.db.system.query(sql`
    SELECT question->'plan'->'spec'->>'storage' AS storage, 'ct:' || (question->'plan'->'spec'->'clone'->>'templateVmid') AS template
    FROM node_queries WHERE question->'plan'->'spec'->>'hostname' = 'new'`);
  expect(asked).toEqual({ storage, template });
  expect(await traces()).toEqual(before);
});

test("a dry run refuses what the deed would refuse, for the same reason", async () => {
  const pod = await bench.running();
  const student = { planCode: "STUDENT", hostname: "free" };
  const order = { planCode: "STARTER", hostname: "new" };
  const refuse = async (path: string, body: object, status: number, code: string) => {
    for (const query of ["?dryRun=true", ""]) {
      const answer = await bench.ask(bench.customer, "POST", `${path}${query}`, body);
      expect([answer.status, answer.json["error"]], `${path}${query} ${JSON.stringify(body)}`).toEqual([status, code]);
    }
  };
  await refuse("", { ...order, planCode: "PALACE" }, 404, "PLAN_NOT_FOUND");
  await refuse("", { ...order, region: "mars" }, 422, "REGION_UNKNOWN");
  await refuse("", { ...order, template: "ct:1" }, 422, "TEMPLATE_UNKNOWN");
  await refuse("", student, 403, "EMAIL_NOT_VERIFIED");
  await refuse(`/${pod.id}/scale`, { planCode: "STUDENT" }, 422, "DISK_SHRINK_UNSUPPORTED");
  await refuse(`/${pod.id}/scale`, { resources: { diskGb: 30 } }, 409, "SCALE_WITHOUT_CHANGE");

  await bench.db.system.execute(
    sql`UPDATE cloud_pod_plans SET requires_verified_email = true, max_per_tenant = 1 WHERE code = 'CLOUD_POD_BUSINESS'`,
  );
  await refuse(`/${pod.id}/scale`, { planCode: "BUSINESS_" }, 404, "PLAN_NOT_FOUND");
  await refuse(`/${pod.id}/scale`, { planCode: "CLOUD_POD_BUSINESS" }, 403, "EMAIL_NOT_VERIFIED");
  await bench.db.system.execute(sql`UPDATE users SET email_verified_at = now() WHERE id = ${bench.customer.userId}`);
  await bench.running(student);
  await refuse("", student, 403, "PLAN_LIMIT_REACHED");
  await bench.running({ planCode: "CLOUD_POD_BUSINESS" });
  await refuse(`/${pod.id}/scale`, { planCode: "CLOUD_POD_BUSINESS" }, 403, "PLAN_LIMIT_REACHED");
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_plans SET requires_verified_email = false, max_per_tenant = NULL WHERE code = 'CLOUD_POD_BUSINESS'`,
  );

  await bench.db.system.execute(sql`UPDATE control_plane_epoch SET holds_orders = true, declared_at = now()`);
  await refuse("", order, 503, "RESTORE_IN_PROGRESS");
  await bench.db.system.execute(sql`UPDATE control_plane_epoch SET holds_orders = false`);
});

test("a pod with volumes that no pod has is destroyed only by who says so, and never after a backup without them", async () => {
  const pod = await bench.running();
  const { nodeId, vmid } = await bench.podNow(pod.id);
  const seen = async (...partsOfNoPod: string[]) => {
    const container = ContainerObservation.fromPartial({ vmid, podId: pod.id, partsOfNoPod });
    const inventory = Inventory.fromPartial({
      quorate: true,
      observedAtMs: BigInt(Date.now()),
      containers: [container],
    });
    await bench.db.system.transaction((tx) => keepInventory(tx, nodeId ?? "", inventory));
  };
  const ask = (query: string) => bench.ask(bench.customer, "DELETE", `/${pod.id}?${query}`);
  await seen("mp0", "net1", "unused1");
  const before = await traces();
  const told = {
    error: "MORE_THAN_A_POD",
    message: expect.stringContaining("has mp0, unused1 (seen at "),
    details: { volumes: ["mp0", "unused1"] },
  };
  const finalToo = "removeVolumes=true&finalBackup=true";
  for (const query of ["dryRun=true", "", "finalBackup=true", finalToo, `dryRun=true&${finalToo}`])
    expect(await ask(query), query).toMatchObject({ status: 409, json: told });
  expect(await traces()).toEqual(before);
  expect(await ask("dryRun=true&removeVolumes=true")).toMatchObject({ status: 200, json: { dryRun: true } });
  expect(await bench.done(await ask("removeVolumes=true"))).toMatchObject({ status: "deleted" });
  expect(await commandsOf(pod.id)).toEqual([{ volumes: ["mp0", "unused1"] }]);

  const other = await bench.running();
  bench.script = (one) =>
    one.op?.$case === "ensureAbsent" ? { state: "failed", errorCode: "MORE_THAN_A_POD", retryable: false } : undefined;
  const asked = await bench.ask(bench.customer, "DELETE", `/${other.id}`);
  expect(asked.status).toBe(202);
  // Something was added after the host had looked: it is no reason to ask again by itself.
  const error = async () => (await bench.podNow(other.id)).lastErrorCode;
  await expect.poll(error, { timeout: 60_000 }).toBe("MORE_THAN_A_POD");
  expect(await commandsOf(other.id)).toEqual([{ volumes: [] }]);
});

async function commandsOf(podId: string): Promise<unknown[]> {
  const rows = await bench.db.system.query<{ value: { volumes?: string[] } }>(
    sql`SELECT command->'ensureAbsent' AS value FROM node_commands WHERE pod_id = ${podId} AND op = 'ensure_absent'`,
  );
  return rows.map(({ value }) => ({ volumes: value.volumes ?? [] }));
}

test("an unknown region or template is told with what there is", async () => {
  const order = (wish: object) =>
    bench.ask(bench.customer, "POST", "", { planCode: "STARTER", hostname: "new", ...wish });
  expect((await order({ region: "mars" })).json).toMatchObject({
    errors: [{ pointer: "/region" }],
    details: { regions: expect.arrayContaining(["local"]) },
  });
  expect((await order({ region: "local", template: "ct:1" })).json).toMatchObject({
    errors: [{ pointer: "/template" }],
    details: { region: "local", templates: ["ct:9000"] },
  });
  await bench.running({ region: "local", template: "ct:9000" });
});

test("an order without a region goes to the tenant's, then to the default", async () => {
  const [nodeId = ""] = await insertFleet(
    bench.db.system,
    { nodes: 1, cores: 8, memoryMb: 8_192, diskGb: 100, region: "eu" },
    "eu",
  );
  const order = { planCode: "STARTER", hostname: "new" };
  expect(await bench.running()).toMatchObject({ region: "local" });
  await bench.db.system.execute(sql`UPDATE tenants SET region = 'eu' WHERE id = ${bench.tenantId}`);
  const dry = await bench.ask(bench.customer, "POST", "?dryRun=true", order);
  expect(dry.json).toMatchObject({ placement: { node: "eu-00001" } });
  expect(await bench.podNow((await bench.running(order)).id)).toMatchObject({ region: "eu", nodeId });
  expect(await bench.running({ region: "local" })).toMatchObject({ region: "local" });
});

test("resources of one's own are priced as the estimate prices them, without traffic", async () => {
  await bench.db.system.execute(sql`
    INSERT INTO cloud_pod_pricing (id, name, currency, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, is_default, effective_from)
    VALUES (${newId()}, 'test', 'USD', 0.01, 0.005, 0.1, 0.02, true, '2025-01-01') ON CONFLICT DO NOTHING`);
  const estimated = await bench.ask(bench.customer, "POST", "/usage/estimate", {
    cores: 2,
    memoryMb: 4_096,
    diskGb: 50,
    estimatedNetworkOutGb: 0,
  });
  const resources = { cores: 2, memoryMb: 4_096, diskGb: 50 };
  const [ordered, scaled] = await Promise.all([
    bench.ask(bench.customer, "POST", "?dryRun=true", { resources, hostname: "new" }),
    bench.ask(bench.customer, "POST", `/${(await bench.running()).id}/scale?dryRun=true`, { resources }),
  ]);
  const price = { ...(estimated.json["totalMonthly"] as object), per: "month" };
  expect(price).toMatchObject({ amount: expect.stringMatching(/^[1-9]\d*\.\d\d$/) });
  expect(ordered.json["price"]).toEqual(price);
  expect(scaled.json["price"]).toEqual(price);
});

test("operators see the reasons of each host, of an order and of a scale", async () => {
  const pod = await bench.running();
  const large = { cores: 1, memoryMb: 1_024, diskGb: 60_000 };
  const headers = { "x-tenant-id": bench.tenantId };
  const rejected = { rejected: [expect.objectContaining({ nodeId: bench.nodeId, filter: "disk" })] };
  const [ordered, scaled] = await Promise.all([
    bench.ask(bench.operator, "POST", "?dryRun=true", { resources: large, hostname: "new", region: "local" }, headers),
    bench.ask(bench.operator, "POST", `/${pod.id}/scale?dryRun=true`, { resources: { diskGb: 60_000 } }),
  ]);
  expect(ordered.json).toMatchObject({ placement: { node: null, hosts: { candidates: [] } } });
  expect(JSON.stringify(ordered.json["placement"])).toContain('"reason":"short of disk by ');
  expect(scaled.json).toMatchObject({
    placement: { node: null, reasons: [{ filter: "disk", nodes: 1 }], hosts: { candidates: [], ...rejected } },
  });
});

test("a resize without room is noted with the size that was wished, and operators hear of the host", async () => {
  const pod = await bench.running();
  const wish = { resources: { cores: 400, diskGb: 60_000 } };
  const refused = await bench.ask(bench.customer, "POST", `/${pod.id}/scale`, wish);
  expect(refused).toMatchObject({
    status: 503,
    json: {
      error: "NO_CAPACITY",
      details: {
        nodes: [
          { filter: "cpu", nodes: 1 },
          { filter: "disk", nodes: 1 },
        ],
      },
    },
  });
  expect(refused.headers.get("retry-after")).toBe("60");
  expect(refused.text).not.toContain("short of");
  const told = await bench.ask(bench.operator, "POST", `/${pod.id}/resize`, {
    resources: { diskGb: 60_000, cores: 2 },
  });
  expect(told.json).toMatchObject({
    error: "NO_CAPACITY",
    details: {
      nodes: [{ nodeId: bench.nodeId, filter: "disk", reason: expect.stringMatching(/^short of disk by \d+ GB$/) }],
    },
  });
  const failures = await bench.db.system.query(sql`
    SELECT f.request->>'cores' AS cores, f.request->>'memoryMb' AS memory, f.request->>'diskGb' AS disk, a.action
    FROM placement_failures f JOIN audit_log a ON a.target_id = f.id::text WHERE f.tenant_id = ${bench.tenantId} ORDER BY f.id`);
  expect(failures).toEqual([
    { cores: "400", memory: "1024", disk: "60000", action: "placement.fail" },
    { cores: "2", memory: "1024", disk: "60000", action: "placement.fail" },
  ]);
  expect(await bench.podNow(pod.id)).toMatchObject({ cores: 1, diskGb: 30, planCode: "CLOUD_POD_STARTER" });
});
