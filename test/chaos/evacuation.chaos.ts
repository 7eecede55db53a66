import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { DemoHost } from "../../tools/demo/demo-hosts.ts";
import { checkInvariants } from "../../tools/demo/check-invariants.ts";
import { copiesOf } from "../support/copies.ts";
import { type PodAnswer, ask, look, order, succeeded } from "../support/customer.ts";
import { pctByHand } from "../support/pct-by-hand.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { processesAbout, signal } from "../support/processes.ts";
import { ownsPort } from "../support/socket-owner.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

let database: TestDatabase;
let stack: Stack;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({
    logins: database,
    hosts: ["pve1", "pve2", "pve3", "pve4"],
    host: (_, directory) => ({
      storages: [
        { id: "local", type: "dir", totalGb: 200, content: "vztmpl" },
        { id: "local-lvm", type: "lvmthin", totalGb: 500, content: "rootdir" },
        { id: "backups", type: "dir", totalGb: 900, content: "backup", shared: true, path: join(directory, "backups") },
      ],
    }),
  });
});
afterAll(async () => {
  await stack.stop();
  await database.close();
});

/** The hosts on which the pod's container runs. */
async function running(pod: PodAnswer): Promise<string[]> {
  const copies = await copiesOf(pod, stack.hosts);
  return copies.flatMap((copy) => /^(.+) running$/.exec(copy)?.[1] ?? []);
}

async function agentOf(host: DemoHost): Promise<number> {
  const about = await processesAbout(host.stateDirectory);
  const agent = about.find(({ commandLine }) => commandLine.includes("run") && commandLine.join(" ").includes("agent"));
  if (agent === undefined) throw new Error(`${host.name} has no agent`);
  return agent.pid;
}

async function runningPod(host: DemoHost): Promise<PodAnswer> {
  const api = stack.customer();
  const pod = await succeeded(api, await order(api, `on-${host.name}`, host.name));
  // It was ordered on this host, but its customer does not insist on it.
  await stack.db.execute(sql`UPDATE cloud_pods SET placement_request = '{}' WHERE id = ${pod.id}`);
  await pctByHand(host, "exec", String(pod.vmid), "--", "mkdir", "/kept");
  return pod;
}

test("hosts that freeze, are cut off or lose power are given up on a person's word, and never run a pod twice afterwards", async () => {
  const [frozen, cut, dead] = [stack.host("pve1"), stack.host("pve2"), stack.host("pve3")];
  const admin = stack.admin();
  const pods = await Promise.all([frozen, cut, dead].map((host) => runningPod(host)));
  const api = stack.customer();
  await Promise.all(pods.map(async (pod) => await succeeded(api, await ask(api, pod, "backup", {}))));
  const agents = { frozen: await agentOf(frozen), cut: await agentOf(cut) };

  const silentSince = Date.now();
  signal(agents.frozen, "SIGSTOP");
  for (const proxy of [stack.front.gateway, stack.front.broker]) proxy.cutOff((port) => ownsPort(agents.cut, port));
  await dead.killAgent();
  await dead.simulated.reboot();
  const since = await until(
    "all three offline",
    async () => {
      const { data } = await admin.request<{ data: { stateSince: string }[] }>("GET", "/api/nodes?state=offline");
      return data.length === 3 ? data.map(({ stateSince }) => Date.parse(stateSince) - silentSince) : undefined;
    },
    90_000,
  );
  console.log(`offline after ${since.map((ms) => `${(ms / 1_000).toFixed(1)} s`).join(", ")}`);
  // Thirty seconds of silence and a look each second; what is left over is for a machine that has much to do.
  expect(Math.max(...since)).toBeLessThan(45_000);
  // Three of four at once: presumed our own fault. Nobody reacts by himself.
  expect(await stack.db.query(sql`SELECT FROM node_drains`)).toEqual([]);
  expect(await stack.db.query(sql`SELECT FROM cloud_pod_moves WHERE purpose = 'evacuate'`)).toEqual([]);

  const giveUp = async ({ name }: DemoHost): Promise<void> => {
    await admin.request("POST", `/api/nodes/${name}/evacuate`, { reason: "chaos", confirmFenced: true });
    await until(
      `the end of the evacuation of ${name}`,
      async () => (await admin.request<{ state: string }>("GET", `/api/nodes/${name}/drain`)).state === "drained",
      120_000,
    );
  };
  await Promise.all([frozen, cut, dead].map(giveUp));
  for (const pod of pods) {
    expect((await look(api, pod)).node).toBe("pve4");
    expect(await running(pod)).toContain("pve4");
  }

  // All three come back at once; whoever still ran a pod hears first that it is not his.
  signal(agents.frozen, "SIGCONT");
  for (const proxy of [stack.front.gateway, stack.front.broker]) proxy.cutOff(undefined);
  await dead.startAgent();
  const back = Date.now();
  for (const pod of pods) {
    await until(`one running copy of ${pod.vmid}`, async () => (await running(pod)).length === 1, 60_000);
    expect(await running(pod)).toEqual(["pve4"]);
  }
  console.log(`one running copy of each ${((Date.now() - back) / 1_000).toFixed(1)} s after their hosts were back`);
  await until(
    "all hosts online",
    async () => (await admin.request<{ data: unknown[] }>("GET", "/api/nodes?state=online")).data.length === 4,
    60_000,
  );
  // And it stays so: nothing that comes late starts a stale copy.
  for (const pod of pods) expect(await running(pod)).toEqual(["pve4"]);
  for (const pod of pods)
    expect(await pctByHand(stack.host("pve4"), "exec", String(pod.vmid), "--", "ls", "/")).toContain("kept");
  expect((await checkInvariants(stack.db, stack.hosts)).oversell).toBe(0);
}, 600_000);
