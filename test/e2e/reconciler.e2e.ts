import { afterAll, beforeAll, expect, test } from "vitest";
import { type Accepted, type PodAnswer, ask, look, metered, order, succeeded } from "../support/customer.ts";
import { workingLoad } from "../support/metered-truth.ts";
import { pctByHand } from "../support/pct-by-hand.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

let database: TestDatabase;
let stack: Stack;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({
    logins: database,
    hosts: ["pve1"],
    environment: { CLOUDPODS_INVENTORY_INTERVAL_SECONDS: "1", CLOUDPODS_ORPHAN_GRACE_SECONDS: "4" },
  });
});
afterAll(async () => {
  await stack.finish();
  await database.close();
});

interface Finding {
  readonly id: string;
  readonly kind: string;
  readonly vmid: number;
  readonly offered: readonly string[];
  readonly action: string | null;
  readonly evidence: Readonly<Record<string, unknown>>;
}

/** Somebody on the host. */
async function pct(...argv: string[]): Promise<void> {
  await pctByHand(stack.host("pve1"), ...argv);
}

async function findings(state: string): Promise<readonly Finding[]> {
  const path = `/api/nodes/findings?node=pve1&state=${state}`;
  return (await stack.admin().request<{ data: Finding[] }>("GET", path)).data;
}

/** Waits until the platform has noticed. */
async function finding(kind: string, vmid: number, state = "open"): Promise<Finding> {
  return await until(
    `${kind} of ${vmid} ${state}`,
    async () => (await findings(state)).find((found) => found.kind === kind && found.vmid === vmid),
    60_000,
  );
}

async function resolve({ id }: Finding, action: string): Promise<void> {
  await stack.admin().request("POST", `/api/nodes/findings/${id}/resolve`, { action, reason: "as agreed" });
}

async function container(vmid: number) {
  return (await stack.host("pve1").simulated.containers()).find((found) => found.vmid === vmid);
}

async function ordered(hostname: string): Promise<PodAnswer> {
  return await succeeded(stack.customer(), await order(stack.customer(), hostname));
}

test("what people do to containers by hand is seen, shown and put right", async () => {
  const [lost, resized, gone] = [await ordered("lost-1"), await ordered("resized-1"), await ordered("gone-1")];
  await succeeded(stack.customer(), await ask(stack.customer(), gone, "destroy"));

  await pct("stop", String(lost.vmid));
  await pct("destroy", String(lost.vmid), "--force", "--purge");
  await pct("set", String(resized.vmid), "--cores", "3");
  const marker = `cloudpods pod=${gone.id} epoch=1 generation=1 stage=ready keys=none`;
  await pct("clone", "9000", String(gone.vmid), "--hostname", "come-again", "--description", marker);

  const missing = await finding("missing", lost.vmid);
  expect(missing.offered).toEqual(["remove", "dismiss"]);
  await expect(ask(stack.customer(), lost, "scale", { planCode: "CLOUD_POD_PREMIUM" })).rejects.toMatchObject({
    code: "CONTAINER_MISSING",
  });

  const larger = await finding("resized", resized.vmid);
  expect(larger.evidence).toMatchObject({ seen: { cores: 3 }, wanted: { cores: 1 } });
  await resolve(larger, "repair");
  await finding("resized", resized.vmid, "resolved");
  expect((await container(resized.vmid))?.config["cores"]).toBe("1");

  expect(await finding("orphan", gone.vmid, "resolved")).toMatchObject({ action: "remove" });
  expect(await container(gone.vmid)).toBeUndefined();

  expect(await container(lost.vmid)).toBeUndefined();
  await resolve(missing, "remove");
  await until("the lost pod to be gone", async () => (await look(stack.customer(), lost)).status === "deleted");
});

test("a lost container comes back from its newest backup, and never empty", async () => {
  const pod = await ordered("kept-1");
  await succeeded(stack.customer(), await ask(stack.customer(), pod, "backup"));
  await pct("stop", String(pod.vmid));
  await pct("destroy", String(pod.vmid), "--force");
  const missing = await finding("missing", pod.vmid);
  expect(missing.offered).toEqual(["repair", "remove", "dismiss"]);
  await resolve(missing, "repair");
  expect(await finding("missing", pod.vmid, "resolved")).toMatchObject({ action: "restore" });
  await until("the pod to run again", async () => (await container(pod.vmid))?.running === true);
  expect(await look(stack.customer(), pod)).toMatchObject({ status: "active", mac: pod.mac });
});

test("a container that was there before becomes a customer's pod as it is, and is metered", async () => {
  await pct("clone", "9000", "555", "--hostname", "legacy-shop");
  await pct("set", "555", "--cores", "2", "--memory", "768", "--nameserver", "10.0.0.2");
  await pct("set", "555", "--net0", "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:0A:0B:0C,ip=10.9.8.7/24,gw=10.9.8.1");
  await pct("start", "555");
  const before = await container(555);
  // It is adopted as the newest inventory has it, and one that was read before the start may have shown it first.
  const shown = await until("the container as it was started", async () => {
    const seen = await finding("unmanaged", 555);
    return seen.evidence["power"] === "running" && seen;
  });
  expect(shown).toMatchObject({ offered: ["adopt", "dismiss"] });

  const wish = { node: "pve1", vmid: 555, tenantId: stack.credentials.tenantId };
  const accepted = await stack.admin().request<Accepted>("POST", "/api/cloud-pods/admin/adopt", wish);
  const pod = await succeeded(stack.customer(), accepted);
  expect(pod).toMatchObject({
    status: "active",
    power: "running",
    vmid: 555,
    cores: 2,
    memoryMb: 768,
    ip: "10.9.8.7",
    mac: "BC:24:11:0A:0B:0C",
    planCode: null,
  });
  const after = await container(555);
  expect(after?.initPid).toBe(before?.initPid);
  for (const key of ["net0", "nameserver", "rootfs", "cores", "memory", "hostname"])
    expect(after?.config[key], key).toBe(before?.config[key]);
  expect(after?.config["tags"]).toBe("cloudpods");
  await stack.host("pve1").simulated.setLoad(555, workingLoad);
  await metered(stack.customer(), pod);
  await finding("unmanaged", 555, "resolved");
  expect((await findings("open")).filter(({ vmid }) => vmid === 555)).toEqual([]);
});
