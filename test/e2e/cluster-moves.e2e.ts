import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { copiesOf } from "../support/copies.ts";
import { type Accepted, type PodAnswer, look, order, succeeded, untilPlaced } from "../support/customer.ts";
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
    hosts: ["pve1", "pve2"],
    host: (_, directory) => ({
      clusterRoot: join(directory, "cluster"),
      storages: [
        { id: "local-lvm", type: "lvmthin", totalGb: 500, content: "rootdir" },
        { id: "shared", type: "dir", totalGb: 500, content: "rootdir,vztmpl,backup", shared: true },
      ],
    }),
  });
});
afterAll(async () => {
  await stack.stop();
  await database.close();
});

async function podOn(name: string, storage: string): Promise<PodAnswer> {
  await stack.admin().request("PUT", `/api/nodes/${name}`, { defaultStorage: storage });
  const api = stack.customer();
  const pod = await succeeded(api, await order(api, `on-${storage}`, name));
  await stack.db.execute(sql`UPDATE cloud_pods SET placement_request = '{}' WHERE id = ${pod.id}`);
  await pctByHand(stack.host(name), "exec", String(pod.vmid), "--", "mkdir", "/kept");
  return pod;
}

async function move(pod: PodAnswer, target: string): Promise<void> {
  const path = `/api/cloud-pods/admin/${pod.id}/migrate`;
  const ask = () => stack.admin().request<Accepted>("POST", path, { target, reason: "test" });
  await succeeded(stack.customer(), await untilPlaced(`${pod.vmid} on ${target}`, ask));
}

async function expectOn(pod: PodAnswer, name: string): Promise<void> {
  expect(await copiesOf(pod, stack.hosts)).toEqual([`${name} running`]);
  expect((await look(stack.customer(), pod)).node).toBe(name);
  expect(await pctByHand(stack.host(name), "exec", String(pod.vmid), "--", "ls", "/")).toContain("kept");
}

/** What a dry run shows of a drain. */
interface DrainPlan {
  readonly moves: readonly {
    readonly commands: readonly { readonly node: string; readonly lines: readonly string[] | null }[];
  }[];
}

async function strategies(pod: PodAnswer): Promise<string[]> {
  const rows = await stack.db.query<{ strategy: string }>(
    sql`SELECT strategy FROM cloud_pod_moves WHERE pod_id = ${pod.id} AND state = 'moved' ORDER BY id`,
  );
  return rows.map(({ strategy }) => strategy);
}

test("members of a cluster hand pods over, a linked clone by archive, and take over from one that died, not from one that is only silent", async () => {
  const shared = await podOn("pve1", "shared");
  await move(shared, "pve2");
  await expectOn(shared, "pve2");
  await move(shared, "pve1");
  await expectOn(shared, "pve1");
  expect(await strategies(shared)).toEqual(["cluster-migrate", "cluster-migrate"]);

  const linked = await podOn("pve1", "local-lvm");
  const drain = { reason: "test" };
  const told = async (): Promise<string[][]> => {
    const plan = await stack.admin().request<DrainPlan>("POST", "/api/nodes/pve1/drain?dryRun=true", drain);
    return plan.moves.map(({ commands }) =>
      commands.map(({ node, lines }) => `${node}: ${lines?.map((line) => line.split(" ")[1]).join(", ") ?? "?"}`),
    );
  };
  // Each in the words of the host itself; what Proxmox starts by itself is known only there. A host that is busy is not waited
  // for: whoever is not answered asks again.
  await expect.poll(told, { timeout: 60_000 }).toEqual(
    expect.arrayContaining([
      ["pve1: migrate", "pve2: ?", "pve2: ?"],
      [
        `pve1: shutdown, ${linked.vmid}`,
        "pve1: ",
        "pve2: --test",
        "pve1: destroy",
        "pve2: restore",
        "pve2: start, exec, exec, push, exec, set",
        "pve2: free",
      ],
    ]),
  );
  await move(linked, "pve2");
  await expectOn(linked, "pve2");
  expect(await strategies(linked)).toEqual(["backup-restore"]);
  await stack.settle();

  // Its agent alone is gone: the cluster sees the member, whose pods run, so nothing of it changes hands.
  const dead = stack.host("pve1");
  await dead.killAgent();
  const admin = stack.admin();
  await until(
    "pve1 offline",
    async () => (await admin.request<{ state: string }>("GET", "/api/nodes/pve1")).state === "offline",
    120_000,
  );
  const evacuated = async (state: string) => {
    await admin.request("POST", "/api/nodes/pve1/evacuate", { reason: "test", confirmFenced: true });
    await until(
      `an evacuation that ends ${state}`,
      async () => (await admin.request<{ state: string }>("GET", "/api/nodes/pve1/drain")).state === state,
      90_000,
    );
  };
  await evacuated("incomplete");
  const { pods } = await admin.request<{ pods: { blocker: { code: string } }[] }>("GET", "/api/nodes/pve1/drain");
  expect(pods).toMatchObject([{ blocker: { code: "MEMBER_ONLINE" } }]);
  await expectOn(shared, "pve1");

  await dead.simulated.reboot();
  stack.host("pve2").simulated.setFaults([{ memberOffline: "pve1" }]);
  await evacuated("drained");
  await expectOn(shared, "pve2");
  expect((await strategies(shared)).at(-1)).toBe("take-over");
  expect(await admin.request<object>("DELETE", "/api/nodes/pve1")).toEqual({ backupsGone: expect.any(Number) });
}, 300_000);
