import { expect, test } from "vitest";
import type { Person, Sent } from "../../../test/support/people.ts";
import { PodsOverHttp } from "../../../test/support/pods-over-http.ts";
import { sql } from "../platform/sql.ts";

const bench = new PodsOverHttp();

const idsOf = (answer: Sent): string[] =>
  (JSON.parse(answer.text) as { data: { id: string }[] }).data.map(({ id }) => id);

/** A list by pages of one. */
async function pagesOf(who: Person, path: string): Promise<string[]> {
  const first = await bench.ask(who, "GET", `${path}&limit=1`);
  const second = await bench.ask(who, "GET", `${path}&limit=1&cursor=${String(first.json["nextCursor"])}`);
  expect(second.json["nextCursor"]).toBeNull();
  return [...idsOf(first), ...idsOf(second)];
}

test("a tenant's pods are listed newest first, by page and by filter", async () => {
  const shop = await bench.running();
  const blog = await bench.running({ planCode: "BUSINESS", hostname: "blog", labels: { tier: "web" } });
  expect(idsOf(await bench.ask(bench.customer, "GET", ""))).toEqual([blog.id, shop.id]);
  expect(await pagesOf(bench.customer, "/my-pods?status=active")).toEqual([blog.id, shop.id]);
  for (const [filter, found] of [
    ["planCode=STARTER", [shop.id]],
    ["planCode=cloud_pod_starter", [shop.id]],
    ["planCode=PALACE", []],
    ["region=local", [blog.id, shop.id]],
    ["region=mars", []],
    ["status=suspended", []],
  ] as const)
    expect(idsOf(await bench.ask(bench.customer, "GET", `/my-pods?${filter}`)), filter).toEqual(found);
  expect((await bench.ask(bench.customer, "GET", "/my-pods?status=asleep")).status).toBe(422);
});

test("a pod is renamed by whoever saw its newest version", async () => {
  const pod = await bench.running();
  const seen = (await bench.ask(bench.customer, "GET", `/${pod.vmid}`)).headers.get("etag") ?? "";
  const change = { name: "Shop", domain: "shop.example.com", labels: { tier: "web" } };
  const changed = await bench.ask(bench.customer, "PUT", `/${pod.id}`, change, { "if-match": seen });
  expect(changed).toMatchObject({ status: 200, json: { ...change, version: pod.version + 1 } });
  expect(changed.headers.get("etag")).not.toBe(seen);
  const stale = await bench.ask(bench.customer, "PUT", `/${pod.id}`, { name: "Late" }, { "if-match": seen });
  expect(stale).toMatchObject({ status: 412, json: { error: "VERSION_MISMATCH" } });
  expect((await bench.ask(bench.customer, "PUT", `/${pod.id}`, { domain: null })).json).toMatchObject({
    name: "Shop",
    domain: null,
    labels: { tier: "web" },
  });
});

test("what a host has to complain of is for operators; only its silence makes a pod ill", async () => {
  const pod = await bench.running();
  const health = async (who: Person) => (await bench.ask(who, "GET", `/${pod.id}/health`)).json;
  const { nodeId } = await bench.podNow(pod.id);
  const well = { healthy: true, conditions: [] };
  expect(await health(bench.customer)).toMatchObject(well);
  for (const kind of ["CapacityBelowAllocation", "CertificateExpiring", "ClockSkew", "VersionSkew"])
    await bench.db.system.execute(
      sql`INSERT INTO node_conditions (node_id, kind, message) VALUES (${nodeId}, ${kind}, 'internal')`,
    );
  expect(await health(bench.customer)).toMatchObject(well);
  const seen = await health(bench.operator);
  expect(seen).toMatchObject({ healthy: true });
  expect(seen["conditions"]).toContainEqual({ kind: "VersionSkew", message: "internal" });
  await bench.db.system.execute(sql`UPDATE node_status SET state = 'offline' WHERE node_id = ${nodeId}`);
  expect(await health(bench.customer)).toMatchObject({
    healthy: false,
    conditions: [{ kind: "HostOffline", message: "The host is offline" }],
  });
  await bench.db.system.execute(sql`UPDATE node_status SET state = 'online' WHERE node_id = ${nodeId}`);
  await bench.db.system.execute(sql`DELETE FROM node_conditions WHERE node_id = ${nodeId}`);
});

test("a pod is resized by either name of the route", async () => {
  const pod = await bench.running();
  await bench.done(await bench.ask(bench.customer, "POST", `/${pod.id}/resize`, { planCode: "PREMIUM" }));
  expect(bench.host.containers.get(pod.vmid)).toMatchObject({ cores: 2, memoryMb: 2_048, diskGb: 75 });
  expect(
    await bench.done(await bench.ask(bench.customer, "POST", `/${pod.vmid}/scale`, { resources: { cores: 3 } })),
  ).toMatchObject({
    cores: 3,
    memoryMb: 2_048,
    diskGb: 75,
    planCode: null,
    billingMode: "metered",
  });
});

test("work that was decided on an older version of the pod is not begun", async () => {
  const pod = await bench.running();
  await bench.ask(bench.customer, "PUT", `/${pod.id}`, { name: "Shop" });
  const stale = { "if-match": `"${pod.version}"` };
  for (const [method, path, body] of [
    ["POST", "/scale", { planCode: "PREMIUM" }],
    ["POST", "/scale?dryRun=true", { planCode: "PREMIUM" }],
    ["POST", "/start"],
    ["POST", "/stop"],
    ["POST", "/restart"],
    ["POST", "/suspend"],
    ["POST", "/resume"],
    ["POST", "/destroy"],
    ["DELETE", ""],
    ["DELETE", "?dryRun=true"],
  ] as const) {
    const refused = await bench.ask(bench.customer, method, `/${pod.id}${path}`, body, stale);
    expect(refused, path).toMatchObject({ status: 412, json: { error: "VERSION_MISMATCH" } });
  }
  const late = await bench.ask(bench.operator, "POST", `/admin/${pod.id}/restart`, undefined, stale);
  expect(late).toMatchObject({ status: 412, json: { error: "VERSION_MISMATCH" } });
  expect(await bench.podNow(pod.id)).toMatchObject({ status: "active", version: pod.version + 1 });
  await bench.done(
    await bench.ask(bench.customer, "POST", `/${pod.id}/stop`, undefined, { "if-match": `"${pod.version + 1}"` }),
  );
  expect(
    await bench.ask(bench.customer, "POST", "", { planCode: "STARTER", hostname: "new" }, { "if-match": '"1"' }),
  ).toMatchObject({ status: 412, json: { error: "IF_MATCH_UNSUPPORTED" } });
});

test("what an operator suspended the customer does not resume, nor the other way round", async () => {
  const pod = await bench.running();
  expect((await bench.ask(bench.customer, "GET", `/${pod.id}`)).json["holds"]).toEqual([]);
  const held = { kind: "operator", effect: "suspend", reason: "sends spam", since: expect.any(String) as string };
  const suspended = await bench.ask(bench.operator, "POST", `/${pod.id}/suspend`, { reason: "sends spam" });
  expect(suspended.json).toMatchObject({ pod: { holds: [held] } });
  await bench.done(suspended);
  expect((await bench.ask(bench.customer, "GET", `/${pod.id}`)).json["holds"]).toEqual([held]);
  expect(await bench.ask(bench.customer, "POST", `/${pod.id}/resume`)).toMatchObject({
    status: 409,
    json: { error: "POD_ON_HOLD", details: { kind: "operator", reason: "sends spam" } },
  });
  expect((await bench.podNow(pod.id)).status).toBe("suspended");
  await bench.done(await bench.ask(bench.operator, "POST", `/${pod.id}/resume`));
  await bench.done(await bench.ask(bench.customer, "POST", `/${pod.id}/suspend`));
  expect(await bench.ask(bench.operator, "POST", `/${pod.id}/resume`)).toMatchObject({
    status: 409,
    json: { error: "POD_ON_HOLD", details: { kind: "customer" } },
  });
  await bench.done(await bench.ask(bench.customer, "POST", `/${pod.id}/resume`));
  expect((await bench.podNow(pod.id)).status).toBe("active");
});

test("an operator who is a member of the tenant acts as its customer", async () => {
  const both = await bench.person({ platformRole: "OPERATOR", tenants: { [bench.tenantId]: "admin" } });
  const pod = await bench.running();
  await bench.done(await bench.ask(both, "POST", `/${pod.id}/suspend`));
  await bench.done(await bench.ask(bench.customer, "POST", `/${pod.id}/resume`));
});

test("operators list the pods of all tenants and restart them", async () => {
  const shop = await bench.running();
  const blog = await bench.running({ hostname: "blog", planCode: "PREMIUM" });
  const mine = `/admin/all?tenantId=${bench.tenantId}&nodeId=${bench.nodeId}`;
  expect(await pagesOf(bench.operator, `${mine}&status=active`)).toEqual([blog.id, shop.id]);
  expect(idsOf(await bench.ask(bench.operator, "GET", `${mine}&status=failed`))).toEqual([]);
  expect(idsOf(await bench.ask(bench.operator, "GET", `${mine}&hostname=blog`))).toEqual([blog.id]);
  expect(idsOf(await bench.ask(bench.operator, "GET", `${mine}&planCode=PREMIUM`))).toEqual([blog.id]);
  const { region } = await bench.podNow(shop.id);
  expect(idsOf(await bench.ask(bench.operator, "GET", `${mine}&region=${region}`))).toEqual([blog.id, shop.id]);
  expect(idsOf(await bench.ask(bench.operator, "GET", `${mine}&region=elsewhere`))).toEqual([]);
  expect(idsOf(await bench.ask(bench.customer, "GET", "?hostname=blog"))).toContain(blog.id);
  expect(idsOf(await bench.ask(bench.customer, "GET", "?hostname=nobody"))).toEqual([]);
  expect(idsOf(await bench.ask(bench.operator, "GET", "/admin/all"))).toEqual(
    expect.arrayContaining([blog.id, shop.id]),
  );
  await bench.done(await bench.ask(bench.operator, "POST", `/admin/${shop.vmid}/restart`));
  expect(bench.host.carriedOut.at(-1)).toBe("reboot");
});

test("operators count pods by status, host and plan", async () => {
  const counts = async () => {
    const { total, byStatus, byNode, byPlan } = JSON.parse(
      (await bench.ask(bench.operator, "GET", "/admin/stats")).text,
    );
    const of = (list: { name: string; pods: number }[], name: string) =>
      list.find((entry) => entry.name === name)?.pods ?? 0;
    const { nodeName } = await bench.podNow(first.id);
    return [total, of(byStatus, "active"), of(byNode, nodeName ?? ""), of(byPlan, "CLOUD_POD_PREMIUM")];
  };
  const first = await bench.running();
  const before = await counts();
  await bench.running({ planCode: "PREMIUM" });
  expect(await counts()).toEqual(before.map((count: number) => count + 1));
});

test("operators see the work that waits, oldest first, with the command it waits for", async () => {
  bench.script = (command) =>
    command.op?.$case === "ensurePower" ? { state: "failed", errorCode: "LOCKED", retryable: true } : undefined;
  const begun = await Promise.all(
    ["one", "two"].map((hostname) => bench.ask(bench.customer, "POST", "", { planCode: "STARTER", hostname })),
  );
  const tasks = begun.map(({ text }) => (JSON.parse(text) as { task: { id: string } }).task.id).toSorted();
  expect(await pagesOf(bench.operator, "/admin/provisioning-queue?")).toEqual(tasks);
  const [, newest] = JSON.parse((await bench.ask(bench.operator, "GET", "/admin/provisioning-queue")).text).data;
  expect(newest).toMatchObject({ tenantId: bench.tenantId, type: "create", ageSeconds: expect.any(Number) });
  bench.script = () => undefined;
  for (const id of tasks) expect(await bench.end(id)).toMatchObject({ state: "succeeded" });
  const left = await bench.db.system.query(sql`
    SELECT FROM cloud_pod_provisioning_tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled')`);
  expect(left).toEqual([]);
  expect(idsOf(await bench.ask(bench.operator, "GET", "/admin/provisioning-queue"))).toEqual([]);
});
