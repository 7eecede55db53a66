import { afterAll, beforeAll, expect, test } from "vitest";
import type { DemoHost } from "../../tools/demo/demo-hosts.ts";
import { type Accepted, type PodAnswer, ask, order, succeeded } from "../support/customer.ts";
import { momentAt, stretchPrograms, watchWork } from "../support/kill-moments.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";

/** More rounds kill later within each moment. */
const rounds = Number(process.env["CLOUDPODS_CHAOS_ROUNDS"] ?? 1);
const laterEachRoundMs = 35;

let database: TestDatabase;
let stack: Stack;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({ logins: database, hosts: ["pve1", "pve2", "pve3"] });
  for (const host of stack.hosts) stretchPrograms(host);
});
afterAll(async () => {
  await stack.finish();
  await database.close();
});

/** Kinds of work in the order of a pod's life, and what the host must show after each. */
const life = [
  { what: "create", running: true },
  { what: "stop", running: false },
  { what: "start", running: true },
  { what: "restart", running: true },
  { what: "scale", running: true },
  { what: "destroy", running: undefined },
] as const;
type Work = (typeof life)[number]["what"];

/** How often the agent was killed in each kind of work. */
const kills: Record<Work, number> = { create: 0, stop: 0, start: 0, restart: 0, scale: 0, destroy: 0 };
/** Moments that each kind of work has, once somebody met the end of it. */
const known: Partial<Record<Work, number>> = {};

test(
  "an agent that dies at any moment of any work leaves one container or none, and the work succeeds",
  async () => {
    for (let round = 0; round < rounds; round += 1) {
      let next = 0;
      const liveHere = async (host: DemoHost): Promise<void> => {
        while (next < (known.create ?? Number.POSITIVE_INFINITY)) {
          next += 1;
          await live(host, next - 1, round);
        }
      };
      await Promise.all(stack.hosts.map((host) => liveHere(host)));
    }
    console.log(`agents killed: ${JSON.stringify(kills)}`);
    // Clone, set, resize and start at the least; one program each; set and resize; destroy.
    const least: typeof kills = { create: 6, stop: 2, start: 2, restart: 2, scale: 4, destroy: 2 };
    for (const { what } of life) expect(kills[what], what).toBeGreaterThanOrEqual(least[what] * rounds);
  },
  150_000 + rounds * 300_000,
);

/** One pod's whole life on a host; at most one kill in each work, at the same index. */
async function live(host: DemoHost, index: number, round: number): Promise<void> {
  let pod: PodAnswer | undefined;
  for (const { what, running } of life) {
    const isKilled = index < (known[what] ?? Number.POSITIVE_INFINITY);
    if (!isKilled && what !== "create" && what !== "destroy") continue;
    pod = await work(host, what, pod, isKilled ? index : undefined, round);
    const here = (await host.simulated.containers()).filter(({ vmid }) => vmid !== host.simulated.templateVmid);
    const seen = here.map(({ vmid, running: isRunning }) => ({ vmid, running: isRunning }));
    const wanted = running === undefined ? [] : [{ vmid: pod.vmid, running }];
    expect(seen, `after ${what}, killed at ${JSON.stringify(momentAt(index))}`).toEqual(wanted);
    if (what === "scale") expect(here[0]?.config).toMatchObject({ cores: "2", memory: "2048" });
  }
}

async function work(
  host: DemoHost,
  what: Work,
  pod: PodAnswer | undefined,
  index: number | undefined,
  round: number,
): Promise<PodAnswer> {
  const api = stack.customer();
  const watch = await watchWork(host);
  const accepted: Accepted =
    what === "create" || pod === undefined
      ? await order(api, `life-${round}-${index ?? "x"}-${host.name}`, host.name)
      : await ask(api, pod, what, what === "scale" ? { planCode: "CLOUD_POD_PREMIUM" } : undefined);
  let isOver = false;
  const done = succeeded(api, accepted).finally(() => {
    isOver = true;
  });
  done.catch(() => {}); // awaited below
  if (index !== undefined) {
    if (await watch.killAt(momentAt(index), () => isOver, round * laterEachRoundMs)) kills[what] += 1;
    else known[what] = Math.min(known[what] ?? index, index);
  }
  return await done;
}
