import type { AddressInfo } from "node:net";
import { serve, type ServerType } from "@hono/node-server";
import { newId } from "@cloudpods/shared/ids";
import type { Logger } from "pino";
import { startAgentGateway } from "./agent-gateway/start-agent-gateway.ts";
import { startBroker, type Broker } from "./broker/start-broker.ts";
import { registerRoutes } from "./compose-routes.ts";
import type { Config } from "./config.ts";
import { prepareDatabase, readMasterKey } from "./data-directory.ts";
import { createApp } from "./http/app.ts";
import { createRouteTable } from "./http/route-table.ts";
import { maintenanceLoops } from "./maintenance.ts";
import { issueReplicaCertificate, issueServerCertificate } from "./nodes/certificate-authority.ts";
import { ensureCertificateAuthority } from "./nodes/ensure-certificate-authority.ts";
import { keepCertificate } from "./nodes/keep-certificate.ts";
import { isNodeAuthorized } from "./nodes/node-certificates.ts";
import { startNodeWatch } from "./nodes/watch-nodes.ts";
import { seedPlans } from "./plans/seed-plans.ts";
import { openDatabase, type Database } from "./platform/database.ts";
import { openHints } from "./platform/hints.ts";
import { startLoops } from "./platform/loops.ts";
import { createMetrics } from "./platform/metrics.ts";
import { sql } from "./platform/sql.ts";
import { recordAddress } from "./pods/addresses.ts";
import { podSagas } from "./pods/pod-sagas.ts";
import { announceReplica, findEmbeddedBroker, isBrokerTaken, withdrawReplica } from "./replicas.ts";
import { startIngest } from "./samples-intake/ingest.ts";
import { createFleetView } from "./scheduling/fleet-view.ts";
import { assertLoginsAreSafe } from "./security/assert-logins-are-safe.ts";
import { recordCommandProgress } from "./tasks/task-events.ts";
import { startTaskWorker } from "./tasks/task-worker.ts";
import { readVersion } from "./version.ts";

/** A running replica. */
export interface ControlPlane {
  /** Where the API answers; undefined without the role `api`. */
  readonly url: string;
  /** The owner's login, for what runs in the same process. */
  readonly system: Database;
  /** Stops taking work, finishes or hands back what is in hand, and ends. */
  stop(): Promise<void>;
}

const replicaHeartbeatMs = 10_000;
/** Commands and results tell of changes at once; the inventory finds what nobody told. */
const inventoryIntervalMs = 60_000;
/** A part that has not stopped by then is left to the end of the process. */
const stopDeadlineMs = 15_000;

/** Starts what this replica's roles ask for, in the order in which the parts lean on each other. */
export async function startControlPlane(config: Config, log: Logger): Promise<ControlPlane> {
  const stops: { readonly name: string; readonly stop: () => Promise<void> | void }[] = [];
  const onStop = (name: string, stop: () => Promise<void> | void): void => void stops.unshift({ name, stop });
  try {
    return await start(config, log, onStop, () => stopAll(stops, log));
  } catch (error) {
    await stopAll(stops, log);
    throw error;
  }
}

type OnStop = (name: string, stop: () => Promise<void> | void) => void;

async function start(config: Config, log: Logger, onStop: OnStop, stop: () => Promise<void>): Promise<ControlPlane> {
  const replicaId = newId();
  const metrics = createMetrics();
  const { system, api, systemUrl } = await openDatabases(config, log, onStop);
  const authorities = await ensureCertificateAuthority(system, await readMasterKey(config));
  const serverCertificate = await keepCertificate({
    issue: (now) => issueServerCertificate(authorities.active, [config.publicHost, "localhost", "127.0.0.1"], now),
    log,
  });
  onStop("server certificate", () => serverCertificate.stop());
  const hints = openHints({ url: systemUrl, log });
  onStop("hints", () => hints.close());
  const serverTls = () => ({
    cert: serverCertificate.current.pem,
    key: serverCertificate.current.privateKeyPem,
    ca: authorities.pems,
  });

  const broker = await startBrokerHere();
  const facts = {
    id: replicaId,
    roles: config.roles,
    gatewayAddress: config.roles.has("gateway") ? `${config.publicHost}:${config.gatewayPort}` : null,
    brokerUrl: broker === undefined ? null : `mqtts://${config.publicHost}:${broker.port}`,
  };
  await announceReplica(system, facts);
  const heartbeat = setInterval(
    () =>
      void announceReplica(system, facts).catch((error: unknown) =>
        log.warn({ err: error }, "cannot announce this replica"),
      ),
    replicaHeartbeatMs,
  );
  onStop("replica", async () => {
    clearInterval(heartbeat);
    await withdrawReplica(system, replicaId);
  });
  const brokerUrl = async (): Promise<string | undefined> => config.mqttUrl ?? (await findEmbeddedBroker(system));
  const addresses = async () => ({
    gatewayAddress: `${config.publicHost}:${config.gatewayPort}`,
    brokerUrl: (await brokerUrl()) ?? `mqtts://${config.publicHost}:${config.brokerPort}`,
  });

  if (config.roles.has("gateway")) await startGatewayHere();
  if (config.roles.has("ingest")) await startIngestHere();
  const fleet = createFleetView();
  const sagas = podSagas(fleet);
  if (config.roles.has("worker")) startWorkHere();
  const url = config.roles.has("api") ? await startApiHere() : "";
  log.info({ replicaId, roles: [...config.roles], url }, "the control plane runs");
  return { url, system, stop };

  async function startBrokerHere(): Promise<Broker | undefined> {
    if (!config.roles.has("broker") || config.mqttUrl !== undefined || (await isBrokerTaken(system, replicaId)))
      return undefined;
    const started = await startBroker({
      tls: serverTls(),
      host: config.brokerHost,
      port: config.brokerPort,
      authorizeNode: (nodeId, serial) => isNodeAuthorized(system, nodeId, serial),
      log,
      registry: metrics,
    });
    serverCertificate.onRenewed(() => started.updateTls(serverTls()));
    const stopListening = hints.on("node_sessions", (nodeId) => {
      dropIfRemoved(started, nodeId).catch((error: unknown) =>
        log.warn({ err: error }, "cannot look whether a node was removed"),
      );
    });
    onStop("broker", async () => {
      stopListening();
      await started.close();
    });
    return started;
  }

  /** A node that was removed may still be connected; its telemetry is refused at ingest either way. */
  async function dropIfRemoved(running: Broker, nodeId: string): Promise<void> {
    const [node] = await system.query<{ removed: boolean }>(
      sql`SELECT removed_at IS NOT NULL AS removed FROM nodes WHERE id = ${nodeId}`,
    );
    if (node?.removed === true) running.disconnectNode(nodeId);
  }

  async function startGatewayHere(): Promise<void> {
    const gateway = await startAgentGateway({
      db: system,
      hints,
      log,
      registry: metrics,
      tls: serverTls(),
      host: config.gatewayHost,
      port: config.gatewayPort,
      settings: {
        replicaId,
        sampleIntervalMs: config.sampleIntervalMs,
        heartbeatIntervalMs: config.heartbeatIntervalMs,
        inventoryIntervalMs,
        brokerUrl: async () => (await addresses()).brokerUrl,
      },
      hooks: { onAddress: recordAddress, onProgress: recordCommandProgress },
    });
    serverCertificate.onRenewed(() => gateway.updateTls(serverTls()));
    onStop("gateway", () => gateway.stop());
  }

  async function startIngestHere(): Promise<void> {
    const clientCertificate = await keepCertificate({
      issue: (now) => issueReplicaCertificate(authorities.active, replicaId, now),
      log,
    });
    onStop("client certificate", () => clientCertificate.stop());
    const url = await brokerUrl();
    if (url === undefined)
      throw new Error("there is no broker: set CLOUDPODS_MQTT_URL or run a replica with the role broker first");
    const ingest = await startIngest({
      database: system,
      databaseUrl: systemUrl,
      mqttUrl: url,
      tls: () => ({
        cert: clientCertificate.current.pem,
        key: clientCertificate.current.privateKeyPem,
        ca: authorities.pems,
      }),
      replicaId,
      log,
      registry: metrics,
    });
    onStop("ingest", () => ingest.stop());
  }

  function startWorkHere(): void {
    const worker = startTaskWorker({
      db: system,
      workerId: replicaId,
      sagas,
      log,
      onCommitted: (task, change) => {
        hints.send("task_events", task.id);
        if (change.nodeId !== undefined) hints.send("node_commands", change.nodeId);
      },
    });
    const stopListening = [hints.on("tasks", () => worker.wake()), hints.on("commands_finished", () => worker.wake())];
    const watch = startNodeWatch({
      db: system,
      log,
      heartbeatIntervalMs: config.heartbeatIntervalMs,
      agentVersion: readVersion(),
      onMassVanishing: (names) =>
        log.error(
          { nodes: names },
          "many hosts vanished at once: presumed a fault of ours, nothing is done about them",
        ),
    });
    const loops = startLoops(system, log, maintenanceLoops(system));
    onStop("work", async () => {
      for (const end of stopListening) end();
      await Promise.all([worker.stop(), watch.stop(), loops.stop()]);
    });
  }

  async function startApiHere(): Promise<string> {
    const routes = createRouteTable();
    registerRoutes(routes, {
      hints,
      fleet,
      sagas,
      issuing: { authorities, addresses },
      defaultRegion: config.defaultRegion,
      secureCookies: config.secureCookies,
    });
    const shutdown = new AbortController();
    const app = createApp({
      routes,
      system,
      api,
      log,
      metrics,
      readiness: {},
      version: readVersion(),
      shutdown: shutdown.signal,
    });
    const { server, port } = await listen(app.fetch, config);
    onStop("api", async () => {
      shutdown.abort();
      await new Promise((closed) => server.close(closed));
    });
    return `http://${config.httpHost === "0.0.0.0" ? "localhost" : config.httpHost}:${port}`;
  }
}

async function openDatabases(
  config: Config,
  log: Logger,
  onStop: OnStop,
): Promise<{ system: Database; api: Database; systemUrl: string }> {
  const database = await prepareDatabase(config);
  onStop("database server", () => database.stop());
  if (database.applied.length > 0) log.info({ applied: database.applied }, "the schema was brought up to date");
  const system = openDatabase({ url: database.systemUrl, applicationName: "cloudpods system", connectionsMax: 20 });
  onStop("system login", () => system.close());
  const api = openDatabase({ url: database.apiUrl, applicationName: "cloudpods api", connectionsMax: 20 });
  onStop("tenants' login", () => api.close());
  await assertLoginsAreSafe(system, api);
  await system.transaction((tx) => seedPlans(tx));
  return { system, api, systemUrl: database.systemUrl };
}

async function listen(
  fetch: (request: Request) => Response | Promise<Response>,
  config: Config,
): Promise<{ server: ServerType; port: number }> {
  return await new Promise((resolve, reject) => {
    const server = serve({ fetch, hostname: config.httpHost, port: config.httpPort }, (info: AddressInfo) =>
      resolve({ server, port: info.port }),
    );
    server.once("error", reject);
  });
}

async function stopAll(
  stops: { readonly name: string; readonly stop: () => Promise<void> | void }[],
  log: Logger,
): Promise<void> {
  for (const { name, stop } of stops.splice(0)) {
    const late = setTimeout(() => log.warn({ part: name }, "does not stop; going on"), stopDeadlineMs);
    const deadline = new Promise<void>((resolve) => setTimeout(resolve, stopDeadlineMs).unref());
    try {
      await Promise.race([stop(), deadline]);
    } catch (error) {
      log.warn({ err: error, part: name }, "did not stop cleanly");
    } finally {
      clearTimeout(late);
    }
  }
}
