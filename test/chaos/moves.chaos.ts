import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { copiesOf } from "../support/copies.ts";
import { type Accepted, type PodAnswer, look, order, succeeded, untilPlaced } from "../support/customer.ts";
import { stretchPrograms } from "../support/kill-moments.ts";
import { pctByHand } from "../support/pct-by-hand.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

/** Each round kills somebody else at each step. */
const rounds = Number(process.env["CLOUDPODS_CHAOS_ROUNDS"] ?? 1);

let database: TestDatabase;
let stack: Stack;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({
    logins: database,
    hosts: ["alone1", "alone2", "member1", "member2"],
    host: (name, directory) => ({
      ...(name.startsWith("member") ? { clusterRoot: join(directory, "cluster") } : {}),
      storages: [
        { id: "local", type: "dir", totalGb: 200, content: "vztmpl" },
        { id: "local-lvm", type: "lvmthin", totalGb: 500, content: "rootdir" },
        { id: "backups", type: "dir", totalGb: 900, content: "backup", shared: true, path: join(directory, "backups") },
        ...(name.startsWith("member")
          ? [{ id: "shared", type: "dir" as const, totalGb: 500, content: "rootdir", shared: true }]
          : []),
      ],
    }),
  });
  await stack.admin().request("PUT", "/api/nodes/member1", { defaultStorage: "shared" });
  for (const host of stack.hosts) stretchPrograms(host);
});
afterAll(async () => {
  await stack.finish();
  await database.close();
});

type Victim = "source" | "target" | "control plane";
const victims: readonly Victim[] = ["source", "target", "control plane"];

/** Whoever looks may come too late for any step: so often a pod moves at most until somebody has died in a long one. */
const movesMax = 5;

/** Steps in which a host works, so that somebody can die in them for certain, and those that are over at once. */
const ways = [
  {
    way: "by archive",
    between: ["alone1", "alone2"],
    long: ["stop", "backup", "verify", "restore", "start", "remove"],
    short: ["check", "switch", "forget-archive", "release"],
  },
  {
    way: "inside a cluster",
    between: ["member1", "member2"],
    long: ["transfer"],
    short: ["start", "check", "confirm", "switch", "release"],
  },
] as const;

async function kill(victim: Victim, from: string, to: string): Promise<void> {
  const [replica] = stack.replicas;
  if (victim === "control plane") {
    await replica.kill();
    await replica.start();
    return;
  }
  const host = stack.host(victim === "source" ? from : to);
  await host.killAgent();
  await host.startAgent();
}

/** Waits until a task is in a step; false when it was over before anybody saw it there. */
async function comesTo(step: string, taskId: string): Promise<boolean> {
  const seen = await until(`step ${step}`, async () => {
    const [task] = await stack.db.query<{ step: string; isOver: boolean }>(
      sql`SELECT step, finished_at IS NOT NULL AS "isOver" FROM cloud_pod_provisioning_tasks WHERE id = ${taskId}`,
    );
    return (task?.step === step || task?.isOver === true) && task;
  });
  return !seen.isOver;
}

/** One copy runs from now on; the other one of a source that was away when it was to go is removed when that is back. */
async function untilAlone(pod: PodAnswer, host: string, what: string): Promise<void> {
  await until(`one copy, when ${what}`, async () => {
    const copies = await copiesOf(pod, stack.hosts);
    expect(
      copies.filter((copy) => copy.endsWith(" running")),
      what,
    ).toEqual([`${host} running`]);
    return copies.length === 1;
  });
}

test.each(ways)(
  "whoever dies at any step of a move $way, one copy runs, with everything that was written",
  async ({ between: [one, other], long, short }) => {
    const api = stack.customer();
    const pod = await succeeded(api, await order(api, `from-${one}`, one));
    // It was ordered on this host, but its customer does not insist on it.
    await stack.db.execute(sql`UPDATE cloud_pods SET placement_request = '{}' WHERE id = ${pod.id}`);
    await pctByHand(stack.host(one), "exec", String(pod.vmid), "--", "mkdir", "/kept");
    const met: string[] = [];
    for (let round = 0; round < rounds; round += 1)
      for (const [index, step] of [...long, ...short].entries()) {
        const victim = victims[(index + round) % victims.length] ?? "source";
        const isLong = long.some((each) => each === step);
        for (let moves = isLong ? movesMax : 1; moves > 0; moves -= 1) {
          const from = (await look(api, pod)).node ?? "";
          const to = from === one ? other : one;
          const wish = { target: to, reason: "chaos" };
          const ask = () => stack.admin().request<Accepted>("POST", `/api/cloud-pods/admin/${pod.id}/migrate`, wish);
          const { task } = await untilPlaced(`the move to ${to}`, ask);
          const isMet = await comesTo(step, task.id);
          if (isMet) met.push(step);
          await kill(victim, from, to);
          await succeeded(api, { pod, task });
          await untilAlone(pod, to, `the ${victim} died at ${step}`);
          expect(await pctByHand(stack.host(to), "exec", String(pod.vmid), "--", "ls", "/")).toContain("kept");
          if (isMet) break;
        }
      }
    console.log(`died at: ${met.join(", ")}`);
    for (const step of long) expect(met).toContain(step);
    // Samples of both hosts count, each once.
    await stack.settle();
    expect(await stack.db.query(sql`SELECT reason FROM usage_rejected_samples`)).toEqual([]);
  },
  120_000 + rounds * 480_000,
);
