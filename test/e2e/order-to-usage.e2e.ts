import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { createApiClient } from "../../tools/demo/api-client.ts";
import { type Invariants, checkInvariants } from "../../tools/demo/check-invariants.ts";
import { signIn } from "../../tools/demo/seed.ts";
import { type Accepted, type PodAnswer, ask, look, metered, order, succeeded } from "../support/customer.ts";
import { consumption, workingLoad } from "../support/metered-truth.ts";
import { pctByHand } from "../support/pct-by-hand.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { readEvents } from "../support/read-events.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

let database: TestDatabase;
let stack: Stack;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({ logins: database, hosts: ["pve1", "pve2"] });
});
afterAll(async () => {
  const found = await stack.finish();
  await database.close();
  expect(found.samplesStored).toBeGreaterThan(0);
});

/** The pod's container as its host has it. */
async function container(pod: { readonly vmid: number; readonly node: string | null }) {
  const all = await stack.host(pod.node ?? "").simulated.containers();
  const found = all.find(({ vmid }) => vmid === pod.vmid);
  if (found === undefined) throw new Error(`${pod.node} has no container ${pod.vmid}`);
  return found;
}

async function allContainers(): Promise<number> {
  const found = await Promise.all(stack.hosts.map((host) => host.simulated.containers()));
  return found.flat().length;
}

describe("a customer's pod", () => {
  test("is ordered, watched, used, changed, rested and given back", async () => {
    const api = stack.customer();
    const { pod: ordered, task } = await order(api, "shop-1");
    expect(ordered).toMatchObject({
      status: "provisioning",
      planCode: "CLOUD_POD_STARTER",
      cores: 1,
      memoryMb: 1_024,
      diskGb: 30,
    });
    const events = await readEvents(`${stack.replicas[0].url}/api/tasks/${task.id}/events`, {
      authorization: `Bearer ${stack.customerToken}`,
    });
    expect(events.map(({ id }) => Number(id))).toEqual(events.map((_, index) => index + 1));
    expect(events.at(-1)?.data).toMatchObject({ state: "succeeded", percent: 100 });
    expect(new Set(events.map(({ data }) => data["step"]))).toEqual(
      new Set(["create", "configure", "start", "wait-for-address", "backup-policy", "activate"]),
    );

    const pod = await look(api, ordered);
    expect(pod).toMatchObject({ status: "active", power: "running", ip: expect.stringMatching(/^10\./) });
    expect((await container(pod)).config).toMatchObject({
      hostname: "shop-1",
      cores: "1",
      memory: "1024",
      tags: "cloudpods",
    });
    expect((await container(pod)).config["onboot"] ?? "0").toBe("0");
    const host = stack.host(pod.node ?? "");
    await host.simulated.setLoad(pod.vmid, workingLoad);
    await metered(api, pod);

    const larger = await succeeded(api, await ask(api, pod, "scale", { planCode: "CLOUD_POD_PREMIUM" }));
    expect(larger).toMatchObject({ cores: 2, memoryMb: 2_048, diskGb: 75, planCode: "CLOUD_POD_PREMIUM" });
    const { config } = await container(pod);
    expect(config).toMatchObject({ cores: "2", memory: "2048", rootfs: expect.stringContaining("size=75G") });

    const { stored, truth } = await consumption(stack.db, host, pod);
    expect(truth.netInBytes).toBeGreaterThan(500_000n);
    expect(stored).toEqual(truth);
    await rests(pod);

    await succeeded(api, await ask(api, pod, "destroy"));
    expect((await look(api, pod)).status).toBe("deleted");
    expect(await host.simulated.containers()).toHaveLength(1); // the template
  });
});

test("a dry run of an order, a scale and a destroy says what is then run, and changes nothing", async () => {
  const api = stack.customer();
  const wish = { planCode: "STARTER", hostname: "asked-1", placement: { nodeLabels: { host: "pve1" } } };
  const larger = { planCode: "CLOUD_POD_PREMIUM" };
  /** The dry run's lines; then those of what is done. */
  const compare = async (method: string, path: string, body: unknown, doIt: () => Promise<Accepted>) => {
    const before = await traces();
    // A host that is busy is not waited for: whoever is not answered asks again.
    const dry = await until(`the host's own lines for ${method} ${path}`, async () => {
      const told = await api.request<DryRun>(method, `${path}?dryRun=true`, body);
      return told.commandsReason === null && told;
    });
    expect(await traces()).toEqual(before);
    expect(dry).toMatchObject({ dryRun: true });
    const accepted = await doIt();
    const pod = await succeeded(api, accepted);
    const asRun = dry.commands?.map((line) =>
      line.replaceAll("<vmid>", String(pod.vmid)).replaceAll("<pod>", pod.id).replaceAll("<mac>", pod.mac),
    );
    expect(asRun).toEqual(await linesOf(accepted.task.id));
    expect(dry.commands?.length).toBeGreaterThan(0);
    return { dry, pod };
  };
  const ordered = await compare("POST", "/api/cloud-pods", wish, () => order(api, "asked-1", "pve1"));
  expect(ordered.dry).toMatchObject({ placement: { node: "pve1" }, price: { amount: "1.49" } });
  expect(ordered.dry.commands?.[0]).toContain("clone 9000 <vmid> ");
  const { pod } = ordered;
  await compare("POST", `/api/cloud-pods/${pod.id}/scale`, larger, () => ask(api, pod, "scale", larger));
  await compare("DELETE", `/api/cloud-pods/${pod.id}`, undefined, () => ask(api, pod, "destroy"));
});

interface DryRun {
  readonly commands: readonly string[] | null;
  readonly commandsReason: string | null;
}

/** What the host ran for a task. */
async function linesOf(taskId: string): Promise<string[]> {
  const commands = await stack.db.query<{ lines: string[] }>(
    sql`SELECT command_lines AS lines FROM node_commands WHERE task_id = ${taskId} ORDER BY id`,
  );
  return commands.flatMap(({ lines }) => lines);
}

/** Power and holds, each seen on the host. */
async function rests(pod: PodAnswer): Promise<void> {
  const api = stack.customer();
  const pid = (await container(pod)).initPid;
  await succeeded(api, await ask(api, pod, "stop"));
  expect((await container(pod)).running).toBe(false);
  await succeeded(api, await ask(api, pod, "start"));
  const again = (await container(pod)).initPid;
  expect(again).not.toBe(pid);
  await succeeded(api, await ask(api, pod, "restart"));
  expect((await container(pod)).running).toBe(true);
  expect((await container(pod)).initPid).not.toBe(again);

  await succeeded(api, await ask(api, pod, "suspend"));
  expect(await look(api, pod)).toMatchObject({ status: "suspended", desiredPower: "stopped" });
  await expect(ask(api, pod, "start")).rejects.toMatchObject({ status: 409 });
  // A suspended pod does not count, so its place in the quota may be gone when it comes back.
  await quota({ pods: 0, cpuCores: 40, memoryMb: 65_536, diskGb: 1_000 });
  await expect(ask(api, pod, "resume")).rejects.toMatchObject({ status: 403, code: "QUOTA_EXCEEDED" });
  expect((await container(pod)).running).toBe(false);
  await quota({ pods: 20, cpuCores: 40, memoryMb: 65_536, diskGb: 1_000 });
  const back = await succeeded(api, await ask(api, pod, "resume"));
  expect(back).toMatchObject({ status: "active", power: "running" });
  expect((await container(pod)).running).toBe(true);
}

async function quota(limits: Readonly<Record<string, number>>): Promise<void> {
  const path = `/api/cloud-pods/tenants/${stack.credentials.tenantId}/quota`;
  await stack.admin().request("PUT", path, { source: "tenant", limits });
}

describe("what cannot be", () => {
  test.each([
    ["a host name with a space", { planCode: "STARTER", hostname: "a b" }, 422, "VALIDATION_FAILED"],
    ["a host name that looks like an option", { planCode: "STARTER", hostname: "--force" }, 422, "VALIDATION_FAILED"],
    ["a domain without a dot", { planCode: "STARTER", hostname: "a", domain: "localhost" }, 422, "VALIDATION_FAILED"],
    ["an unknown plan", { planCode: "PALACE", hostname: "a" }, 404, "PLAN_NOT_FOUND"],
    [
      "a plan and resources",
      { planCode: "STARTER", resources: { cores: 1, memoryMb: 64, diskGb: 1 }, hostname: "a" },
      422,
      "VALIDATION_FAILED",
    ],
    [
      "more than any host has",
      { resources: { cores: 33, memoryMb: 1_024, diskGb: 8 }, hostname: "a" },
      503,
      "NO_CAPACITY",
    ],
    [
      "more than the quota allows",
      { resources: { cores: 41, memoryMb: 1_024, diskGb: 8 }, hostname: "a" },
      403,
      "QUOTA_EXCEEDED",
    ],
  ])("an order with %s is refused and leaves nothing", async (_, body, status, code) => {
    const before = await traces();
    await expect(stack.customer().request("POST", "/api/cloud-pods", body)).rejects.toMatchObject({ status, code });
    expect(await traces()).toEqual(before);
  });

  test("a scale that no host can carry, or that shrinks a disk, leaves the pod as it is", async () => {
    const api = stack.customer();
    const pod = await succeeded(api, await order(api, "small-1"));
    const before = [await look(api, pod), (await container(pod)).config, await traces()];
    for (const [resources, status, code] of [
      [{ cores: 35 }, 503, "NO_CAPACITY"],
      [{ diskGb: 900 }, 503, "NO_CAPACITY"],
      [{ diskGb: 2 }, 422, "DISK_SHRINK_UNSUPPORTED"],
    ] as const)
      await expect(ask(api, pod, "scale", { resources })).rejects.toMatchObject({ status, code });
    expect([await look(api, pod), (await container(pod)).config, await traces()]).toEqual(before);
    await succeeded(api, await ask(api, pod, "destroy"));
  });

  test("another tenant's pod and task are not there", async () => {
    const accepted: Accepted = await order(stack.customer(), "mine-1");
    const pod = await succeeded(stack.customer(), accepted);
    const stranger = await otherTenant();
    const paths = ["", "/health", "/usage/realtime", "/placement", "/tasks"].map(
      (end) => `/api/cloud-pods/${pod.vmid}${end}`,
    );
    for (const path of [...paths, `/api/tasks/${accepted.task.id}`])
      await expect(stranger.request("GET", path), path).rejects.toMatchObject({ status: 404 });
    for (const what of ["stop", "restart", "suspend", "destroy", "scale"])
      await expect(
        ask(stranger, pod, what, what === "scale" ? { planCode: "BUSINESS" } : undefined),
        what,
      ).rejects.toMatchObject({ status: 404 });
    expect(await look(stack.customer(), pod)).toMatchObject({ status: "active", power: "running" });
    expect((await container(pod)).running).toBe(true);
  });
});

/** What each kind of damage is, how it is done, and how it is mended. */
const damages = [
  {
    name: "a container that nobody ordered",
    does: () => pct("clone", "9000", "555", "--hostname", "stray"),
    mends: () => pct("destroy", "555", "--force", "--purge"),
    // The container and its disk.
    found: { orphans: 2 },
  },
  {
    name: "a host that promises more than was claimed of it",
    does: () => stack.db.execute(sql`UPDATE node_capacity SET cpu_allocated = cpu_allocated + 1`),
    mends: () => stack.db.execute(sql`UPDATE node_capacity SET cpu_allocated = cpu_allocated - 1`),
    found: { oversell: 2 },
  },
  {
    name: "a sample that is not where it was",
    does: () => moveFirstSample("-3 ms"),
    mends: () => moveFirstSample("3 ms"),
    found: { samplesLost: 1 },
  },
  {
    name: "a sample that counts twice",
    does: () =>
      stack.db.execute(sql`
        INSERT INTO cloud_pod_usage_samples SELECT (jsonb_populate_record(s, jsonb_build_object('seq', seq + 1000000, 'sample_time', sample_time - interval '1 ms'))).*
        FROM cloud_pod_usage_samples s ORDER BY sample_time LIMIT 1`),
    mends: () => stack.db.execute(sql`DELETE FROM cloud_pod_usage_samples WHERE seq > 1000000`),
    found: { samplesDuplicated: 1 },
  },
] as const;

test.each(damages)("the invariants see $name", async ({ does, mends, found }) => {
  const clean = { samplesLost: 0, samplesDuplicated: 0, oversell: 0, orphans: 0 };
  expect(await stack.settle()).toMatchObject(clean);
  await does();
  try {
    // Samples that come in meanwhile may not have been stored yet.
    await until("what was damaged", async () =>
      isDeepStrictEqual({ ...clean, ...found }, faults(await checkInvariants(stack.db, stack.hosts))),
    );
  } finally {
    await mends();
  }
});

function faults({ samplesLost, samplesDuplicated, oversell, orphans }: Invariants) {
  return { samplesLost, samplesDuplicated, oversell, orphans };
}

async function pct(...argv: string[]): Promise<void> {
  await pctByHand(stack.host("pve2"), ...argv);
}

async function moveFirstSample(by: string): Promise<void> {
  await stack.db.execute(sql`
    UPDATE cloud_pod_usage_samples SET sample_time = sample_time + ${by}::interval
    WHERE (pod_id, sample_time, spool_no, seq) = (SELECT pod_id, sample_time, spool_no, seq FROM cloud_pod_usage_samples ORDER BY spool_no, seq LIMIT 1)`);
}

/** Everything that an order leaves: rows of the customer, containers, promises of hosts. */
async function traces() {
  const api = stack.customer();
  const [pods, quotaNow, nodes] = await Promise.all([
    api.request<{ data: PodAnswer[] }>("GET", "/api/cloud-pods"),
    api.request<{ usage: unknown }>("GET", `/api/cloud-pods/tenants/${stack.credentials.tenantId}/quota`),
    stack.admin().request<{ data: { cpu: { allocated: number } }[] }>("GET", "/api/nodes"),
  ]);
  return {
    pods: pods.data.map(({ id }) => id),
    usage: quotaNow.usage,
    promised: nodes.data.map(({ cpu }) => cpu.allocated),
    containers: await allContainers(),
  };
}

/** A customer of another tenant, made by an administrator. */
async function otherTenant() {
  const admin = stack.admin();
  const password = "another-good-password-1";
  await admin.request("POST", "/api/users", { email: "stranger@demo.test", password, name: "Stranger" });
  await admin.request("POST", "/api/tenants", { slug: "other", name: "Other Ltd", ownerEmail: "stranger@demo.test" });
  return createApiClient(stack.replicas[0].url, await signIn(stack.replicas[0].url, "stranger@demo.test", password));
}
