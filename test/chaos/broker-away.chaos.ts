import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureCertificateAuthority } from "../../control-plane/src/nodes/ensure-certificate-authority.ts";
import { masterKey } from "../../control-plane/src/platform/sealing.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { type ExternalBrokerTls, externalBrokerTls } from "../support/broker-identities.ts";
import { type PodAnswer, order, succeeded } from "../support/customer.ts";
import { consumption, workingLoad } from "../support/metered-truth.ts";
import { type Mosquitto, startMosquitto } from "../support/mosquitto.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { signal } from "../support/processes.ts";
import { spooledBatches } from "../support/spooled-batches.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

/** More rounds kill the broker more often. */
const rounds = Number(process.env["CLOUDPODS_CHAOS_ROUNDS"] ?? 1);
const batchesAway = 4;

let database: TestDatabase;
let tls: ExternalBrokerTls;
let broker: Mosquitto;
let stack: Stack;
let pod: PodAnswer;
beforeAll(async () => {
  database = await createTestDatabase();
  // The broker's certificate is of the fleet's authority, which is otherwise made with the first replica.
  const key = randomBytes(32);
  const { active } = await ensureCertificateAuthority(database.system, masterKey(key));
  tls = await externalBrokerTls(active);
  broker = await startMosquitto(tls);
  const mqttUrl = `mqtts://localhost:${broker.port}`;
  stack = await startStack({ logins: database, mqttUrl, masterKey: key, hosts: ["pve1", "pve2"], replicas: 2 });
  await stack.replicas[1]?.start();
  pod = await succeeded(stack.customer(), await order(stack.customer(), "witness", "pve1"));
});
afterAll(async () => {
  await stack.finish();
  await broker.stop();
  await database.close();
});

async function storedSamples(): Promise<bigint> {
  const [row] = await stack.db.query<{ count: bigint }>(
    sql`SELECT count(*) FROM cloud_pod_usage_samples WHERE pod_id = ${pod.id}`,
  );
  return row?.count ?? 0n;
}

/** Samples are stored again, and what was stored in the end is what the host says was used. */
async function provesNothingLost(): Promise<void> {
  const { stored, truth } = await consumption(stack.db, stack.host("pve1"), pod);
  expect(stored).toEqual(truth);
}

test(
  "the broker is killed and comes back: orders go on meanwhile, and no usage is lost",
  async () => {
    const host = stack.host("pve1");
    await host.simulated.setLoad(pod.vmid, workingLoad);
    for (let round = 0; round < rounds; round += 1) {
      const before = await storedSamples();
      await until("samples", async () => (await storedSamples()) > before + 1n);
      const spooled = spooledBatches(host);
      await broker.kill();
      const ordered = await succeeded(stack.customer(), await order(stack.customer(), `away-${round}`, "pve2"));
      expect(ordered).toMatchObject({ status: "active", power: "running" });
      // It goes on to look each second.
      await until("batches that wait", () => spooledBatches(host) >= spooled + batchesAway);
      broker = await startMosquitto(tls, broker.port);
    }
    await provesNothingLost();
  },
  300_000 + rounds * 40_000,
);

test("what the broker had queued is gone with it, and offered again", async () => {
  const host = stack.host("pve1");
  await host.simulated.setLoad(pod.vmid, workingLoad);
  const before = await storedSamples();
  await until("samples", async () => (await storedSamples()) > before);
  // Nobody takes what the broker is given.
  for (const replica of stack.replicas) signal(replica.pid(), "SIGSTOP");
  try {
    const spooled = spooledBatches(host);
    await until("batches in the broker's queue", () => spooledBatches(host) >= spooled + 3);
    await broker.kill();
    broker = await startMosquitto(tls, broker.port);
  } finally {
    for (const replica of stack.replicas) signal(replica.pid(), "SIGCONT");
  }
  await provesNothingLost();
}, 300_000);
