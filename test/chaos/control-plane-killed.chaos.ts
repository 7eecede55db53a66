import { afterAll, beforeAll, expect, test } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { type Accepted, type PodAnswer, ask, order, succeeded } from "../support/customer.ts";
import { consumption, workingLoad } from "../support/metered-truth.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

/** Each round kills at every event of an order's story once more. */
const rounds = Number(process.env["CLOUDPODS_CHAOS_ROUNDS"] ?? 1);
/** Lines in the story of an order that nobody disturbs: four commands, each asked and answered, and its ends. */
const eventsOfAnOrder = 10;

let database: TestDatabase;
let stack: Stack;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({ logins: database, hosts: ["pve1", "pve2"] });
});
afterAll(async () => {
  await stack.finish();
  await database.close();
});

/** Waits until the story of a task has so many lines, or has ended. */
async function untilEvent(taskId: string, count: number): Promise<void> {
  await until(
    `event ${count} of the order`,
    async () => {
      const [task] = await stack.db.query<{ seq: number; over: boolean }>(
        sql`SELECT last_seq AS seq, finished_at IS NOT NULL AS over FROM cloud_pod_provisioning_tasks WHERE id = ${taskId}`,
      );
      return task !== undefined && (task.seq >= count || task.over);
    },
    60_000,
  );
}

test(
  "a control plane that dies at any event of an order makes one container of it, and no usage is lost",
  async () => {
    const [replica] = stack.replicas;
    const api = stack.customer();
    const witness = await succeeded(api, await order(api, "witness", "pve1"));
    await stack.host("pve1").simulated.setLoad(witness.vmid, workingLoad);
    const accepted: Accepted[] = [];
    for (let round = 0; round < rounds; round += 1) {
      for (let event = 1; event <= eventsOfAnOrder; event += 1) {
        const each = await order(api, `event-${round}-${event}`);
        accepted.push(each);
        await untilEvent(each.task.id, event);
        await replica.kill();
        // Every second time the whole room loses its power; that also ends the agents' growing patience.
        if (event % 2 === 0) await Promise.all(stack.hosts.map((host) => host.killAgent()));
        await replica.start();
        if (event % 2 === 0) await Promise.all(stack.hosts.map((host) => host.startAgent()));
      }
      await Promise.all(accepted.splice(0).map((each) => provesOne(each)));
    }
    const { stored, truth } = await consumption(stack.db, stack.host("pve1"), witness);
    expect(stored).toEqual(truth);
  },
  180_000 + rounds * 300_000,
);

/** The order succeeded, with one container that runs; then it is given back. */
async function provesOne(accepted: Accepted): Promise<void> {
  const api = stack.customer();
  const pod: PodAnswer = await succeeded(api, accepted);
  expect(pod).toMatchObject({ status: "active", power: "running" });
  const found = await Promise.all(
    stack.hosts.map(async (host) => (await host.simulated.containers()).filter(({ vmid }) => vmid === pod.vmid)),
  );
  expect(found.flat()).toMatchObject([{ running: true, config: { hostname: expect.stringMatching(/^event-/) } }]);
  await succeeded(api, await ask(api, pod, "destroy"));
}
