import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { brokerTls, hostTls, replicaTls } from "../../../test/support/broker-identities.ts";
import { publishingHost } from "../../../test/support/publishing-host.ts";
import { batchOf, seedFleet } from "../../../test/support/telemetry-fleet.ts";
import { makeTestAuthority } from "../../../test/support/test-authority.ts";
import { until } from "../../../test/support/until.ts";
import { startBroker } from "../broker/start-broker.ts";
import { openDatabase } from "../platform/database.ts";
import { startEmbeddedPostgres } from "../platform/embedded-postgres.ts";
import { createLogins, migrate } from "../platform/migrate.ts";
import { sql } from "../platform/sql.ts";
import { startIngest } from "./ingest.ts";

/** A fixed address for a server whose port changes when it is started again. */
async function startProxy(): Promise<{ port: number; target: (port: number) => void; close: () => Promise<void> }> {
  let target = 0;
  const sockets = new Set<Socket>();
  const server = createServer((incoming) => {
    const outgoing = connect({ host: "127.0.0.1", port: target });
    for (const [one, other] of [
      [incoming, outgoing],
      [outgoing, incoming],
    ] as const) {
      sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
    incoming.pipe(outgoing).pipe(incoming);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    target(port) {
      target = port;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function through(url: string, port: number): string {
  const changed = new URL(url);
  changed.port = String(port);
  return changed.toString();
}

test("PostgreSQL stops and comes back: nothing is lost, nothing counts twice", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-away-"));
  const proxy = await startProxy();
  let server = await startEmbeddedPostgres({ directory });
  proxy.target(server.port);
  const logins = await createLogins(server.superuserUrl, "away");
  await migrate(logins.systemUrl, logins.apiUrl);
  const databaseUrl = through(logins.systemUrl, proxy.port);
  const database = openDatabase({ url: databaseUrl, applicationName: "test", connectionsMax: 4 });
  const [node] = await seedFleet(database, { nodes: 1, podsPerNode: 5 });
  if (node === undefined) return expect.fail("no node");

  const authority = await makeTestAuthority();
  const log = pino({ level: "silent" });
  const registry = new Registry();
  const broker = await startBroker({
    tls: await brokerTls(authority),
    host: "127.0.0.1",
    port: 0,
    authorizeNode: async () => true,
    log,
    registry,
  });
  const replicaId = newId();
  const tls = await replicaTls(authority);
  const ingest = startIngest({
    database,
    databaseUrl,
    mqttUrl: () => `mqtts://127.0.0.1:${broker.port}`,
    tls: () => tls,
    replicaId,
    log,
    registry,
  });
  const host = await publishingHost(node.nodeId, broker.port, await hostTls(authority, node.nodeId));
  try {
    await until("the subscription", () => ingest.mode() === "plain");
    const spoolId = newId();
    const endMs = Math.floor(Date.now() / 60_000) * 60_000;
    const batches = Array.from({ length: 60 }, (_, at) =>
      batchOf(node, spoolId, { from: at + 1 }, endMs - (60 - at) * 60_000),
    );
    host.offer(...batches.slice(0, 20));
    await until("the first acknowledgements", () => host.waiting() === 0);

    host.offer(...batches.slice(20, 30));
    await server.stop();
    host.offer(...batches.slice(30, 40));
    await until("a failed attempt", async () => /cloudpods_ingest_failures_total [1-9]/.test(await registry.metrics()));
    expect(host.waiting()).toBeGreaterThan(0);

    server = await startEmbeddedPostgres({ directory });
    proxy.target(server.port);
    host.offer(...batches.slice(40));
    await until("all acknowledgements", () => host.waiting() === 0);
    const [stored] = await until("the count", () =>
      database.query<{ rows: number }>(sql`SELECT count(*)::integer AS rows FROM cloud_pod_usage_samples`),
    );
    expect(stored).toEqual({ rows: 60 * 5 });
  } finally {
    await host.close();
    await ingest.stop();
    await broker.close();
    await database.close();
    await proxy.close();
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
});
