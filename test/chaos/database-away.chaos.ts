import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { spooledBatches } from "../support/spooled-batches.ts";
import { type PodAnswer, ask, order, succeeded } from "../support/customer.ts";
import { consumption, workingLoad } from "../support/metered-truth.ts";
import { type LoadAnswer, type RequestLoad, startRequestLoad } from "../support/request-load.ts";
import { type Stack, startStack, untilOnline } from "../support/stack.ts";
import { type StoppablePostgres, startStoppablePostgres } from "../support/stoppable-postgres.ts";
import { until } from "../support/until.ts";

/** Each round the database is away for longer. */
const rounds = Number(process.env["CLOUDPODS_CHAOS_ROUNDS"] ?? 1);
const firstAwayMs = 5_000;

let database: StoppablePostgres;
let stack: Stack;
let pod: PodAnswer;
let load: RequestLoad;
beforeAll(async () => {
  database = await startStoppablePostgres();
  stack = await startStack({ logins: database.logins, hosts: ["pve1", "pve2"] });
  pod = await succeeded(stack.customer(), await order(stack.customer(), "witness", "pve1"));
  load = startRequestLoad(stack.replicas[0], stack.customerToken, pod);
});
afterAll(async () => {
  await load.stop();
  const found = await stack.finish();
  await database.dispose();
  console.log(`samples stored: ${found.samplesStored}; answers: ${JSON.stringify(tally(load.answers))}`);
});

function tally(answers: readonly LoadAnswer[]): Record<string, number> {
  const names = answers.map(({ status, code }) => `${status}${code === undefined ? "" : ` ${code}`}`);
  return Object.fromEntries([...new Set(names)].map((name) => [name, names.filter((each) => each === name).length]));
}

test.each([
  ["stops", () => database.stop(), () => database.start()],
  ["freezes", () => database.freeze(), () => database.thaw()],
])(
  "PostgreSQL %s under load: it costs time and nothing else",
  async (_, goes, comes) => {
    for (let round = 0; round < rounds; round += 1) await goesAndComes(goes, comes, firstAwayMs * (round + 1));
    const strange = load.answers.filter(
      ({ status, retryAfter }) => status !== 200 && (status !== 503 || retryAfter === null),
    );
    expect(strange).toEqual([]);
  },
  300_000 + rounds * rounds * 60_000,
);

async function goesAndComes(goes: () => Promise<void>, comes: () => Promise<void>, awayMs: number): Promise<void> {
  const api = stack.customer();
  const host = stack.host("pve1");
  await host.simulated.setLoad(pod.vmid, workingLoad);
  await untilOnline(stack.admin(), stack.hosts);
  const inFlight = await Promise.all(stack.hosts.map(({ name }) => order(api, `flight-${name}`, name)));
  const beforeMs = Date.now();
  const sampledBefore = spooledBatches(host);
  await goes();
  await sleep(awayMs);
  // A sample each second, away or not.
  await until("samples meanwhile", () => spooledBatches(host) >= sampledBefore + awayMs / 1_000);
  await comes();
  const backMs = Date.now();
  await until(
    "requests that are served again",
    () => load.answers.some(({ atMs, status }) => atMs >= backMs && status === 200),
    60_000,
  );
  const pods = await Promise.all(inFlight.map((each) => succeeded(api, each)));
  await untilOnline(stack.admin(), stack.hosts);
  const { stored, truth } = await consumption(stack.db, host, pod);
  expect(stored).toEqual(truth);
  await Promise.all(pods.map(async (each) => await succeeded(api, await ask(api, each, "destroy"))));
  // It really was away: requests were sent back, or waited for as long as it was frozen.
  const felt = load.answers
    .filter(({ atMs, tookMs }) => atMs + tookMs >= beforeMs)
    .filter(({ status, tookMs }) => status === 503 || tookMs > awayMs / 2);
  expect(felt).not.toEqual([]);
}
