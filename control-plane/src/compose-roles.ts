import type { AddressInfo } from "node:net";
import { DomainError } from "@cloudpods/shared/errors";
import { serve, type ServerType } from "@hono/node-server";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import { startAgentGateway } from "./agent-gateway/start-agent-gateway.ts";
import { backupLoops } from "./backups/backup-loops.ts";
import { bandwidthLoops } from "./bandwidth/bandwidth-loops.ts";
import { budgetLoops } from "./budgets/budget-loops.ts";
import { registerRoutes } from "./compose-routes.ts";
import type { Config } from "./config.ts";
import { drainLoops } from "./drains/drain-loops.ts";
import { createApp } from "./http/app.ts";
import { createHealthApp } from "./http/health.ts";
import { createRouteTable } from "./http/route-table.ts";
import { maintenanceLoops } from "./maintenance.ts";
import { issueReplicaCertificate } from "./nodes/certificate-authority.ts";
import type { FollowedAuthorities } from "./nodes/ensure-certificate-authority.ts";
import { keepCertificate } from "./nodes/keep-certificate.ts";
import { usageLoops } from "./metering/usage-loops.ts";
import { moveLoops } from "./moves/move-loops.ts";
import { startNodeWatch } from "./nodes/watch-nodes.ts";
import { notificationLoops } from "./notifications/notification-loops.ts";
import { openMailer } from "./notifications/send-email.ts";
import { resolveWithSystem } from "./notifications/webhook-target.ts";
import { deadLetterMetrics } from "./ops/dead-letter-metrics.ts";
import { fleetMetrics } from "./ops/fleet-metrics.ts";
import type { Database } from "./platform/database.ts";
import type { Hints } from "./platform/hints.ts";
import { startLoops } from "./platform/loops.ts";
import type { MasterKey } from "./platform/sealing.ts";
import { recordAddress } from "./pods/addresses.ts";
import { podHints } from "./pods/pod-hints.ts";
import { podSagas } from "./pods/pod-sagas.ts";
import { reconcilerLoop } from "./reconciling/reconcile-nodes.ts";
import { accrueMonth } from "./rating/accrual.ts";
import { startIngest, type Ingest } from "./samples-intake/ingest.ts";
import { openStorePool } from "./samples-intake/store-pool.ts";
import { createFleetView } from "./scheduling/fleet-view.ts";
import { recordCommandProgress } from "./tasks/task-events.ts";
import { startTaskWorker } from "./tasks/task-worker.ts";
import { readVersion } from "./version.ts";

/** What every role of a replica leans on. */
export interface Replica {
  readonly id: string;
  readonly config: Config;
  readonly log: Logger;
  readonly system: Database;
  readonly api: Database;
  readonly systemUrl: string;
  readonly masterKey: MasterKey;
  readonly authorities: FollowedAuthorities;
  readonly hints: Hints;
  readonly metrics: Registry;
  readonly serverTls: () => { cert: string; key: string; ca: readonly string[] };
  readonly onCertificateRenewed: (callback: () => void) => void;
  /** Tells the other replicas that the embedded broker runs here; undefined: no longer. */
  readonly announceBroker: (url: string | undefined) => Promise<void>;
  /** Where the broker is; undefined until one has been found. */
  readonly brokerUrl: () => string | undefined;
  /** Fulfilled with the address of the first broker that is found. */
  readonly brokerFound: Promise<string>;
  readonly gatewayAddress: string;
  /** What must work before requests are sent here; roles add theirs. */
  readonly readiness: Record<string, () => Promise<unknown>>;
  /** Parts are stopped in the reverse order of their start. */
  readonly onStop: (name: string, stop: () => Promise<void> | void) => void;
}

/** Retries are asked for by people, one at a time. */
const redriveConnectionsMax = 2;

/** A receiver that needs longer is tried again later. */
const webhookDeadlineMs = 8_000;

/** Listens for agents. */
export async function startGatewayRole(replica: Replica): Promise<void> {
  const { config, system, hints, log, metrics, serverTls, brokerUrl } = replica;
  const gateway = await startAgentGateway({
    db: system,
    hints,
    log,
    registry: metrics,
    tls: serverTls(),
    host: config.gatewayHost,
    port: config.gatewayPort,
    settings: {
      replicaId: replica.id,
      sampleIntervalMs: config.sampleIntervalMs,
      heartbeatIntervalMs: config.heartbeatIntervalMs,
      inventoryIntervalMs: config.inventoryIntervalMs,
      // Told of none, an agent keeps the broker that it has.
      brokerUrl: async () => await Promise.resolve(brokerUrl() ?? ""),
    },
    hooks: { onAddress: recordAddress, onProgress: recordCommandProgress },
  });
  replica.onCertificateRenewed(() => gateway.updateTls(serverTls()));
  replica.onStop("gateway", () => gateway.stop());
}

/** Stores what agents measure. */
export async function startIngestRole(replica: Replica): Promise<void> {
  const { authorities, log, system, systemUrl, metrics } = replica;
  const certificate = await keepCertificate({
    issue: (now) => issueReplicaCertificate(authorities.active, now),
    log,
  });
  replica.onStop("client certificate", () => certificate.stop());
  authorities.onChange(() => certificate.renewNow());
  let ingest: Ingest | undefined;
  let isStopping = false;
  const starting = replica.brokerFound.then((first) => {
    if (isStopping) return;
    ingest = startIngest({
      database: system,
      databaseUrl: systemUrl,
      mqttUrl: () => replica.brokerUrl() ?? first,
      tls: () => ({ cert: certificate.current.pem, key: certificate.current.privateKeyPem, ca: authorities.pems }),
      replicaId: replica.id,
      log,
      registry: metrics,
    });
  });
  starting.catch((error: unknown) => log.error({ err: error }, "ingest cannot be started"));
  replica.readiness["broker"] = async () => {
    if (ingest === undefined) throw new Error("no replica runs a broker");
    if (ingest.mode() === "connecting") throw new Error("ingest is not connected to the broker");
    await Promise.resolve();
  };
  replica.onStop("ingest", async () => {
    isStopping = true;
    await ingest?.stop();
  });
  if (replica.brokerUrl() === undefined) log.warn("no replica runs a broker yet; ingest waits for one");
  else await starting;
}

/** Carries out tasks, watches the hosts and keeps the tables in order. */
export function startWorkerRole(replica: Replica): void {
  const { system, log, hints, config } = replica;
  fleetMetrics(replica.metrics, system, log);
  const worker = startTaskWorker({
    db: system,
    workerId: replica.id,
    sagas: podSagas(createFleetView()),
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
    onMassVanishing: (nodes) =>
      log.error({ nodes }, "many hosts vanished at once: presumed a fault of ours, nothing is done about them"),
  });
  const mailer = config.mail === undefined ? undefined : openMailer(config.mail);
  replica.readiness["mail"] = async () => await Promise.resolve({ configured: mailer !== undefined });
  const watching = { db: system, log, hints: podHints(hints), accrue: accrueMonth };
  const loops = startLoops(system, log, [
    ...maintenanceLoops(system),
    reconcilerLoop({
      db: system,
      log,
      graceMs: config.orphanGraceMs,
      onCommand: (nodeId) => hints.send("node_commands", nodeId),
    }),
    ...usageLoops({ db: system, log, databaseUrl: replica.systemUrl, archiveDirectory: config.archiveDirectory }),
    ...budgetLoops(watching),
    ...bandwidthLoops(watching),
    ...moveLoops({ db: system, log, hints }),
    ...drainLoops({ db: system, fleet: createFleetView(), onQueued: podHints(hints).workQueued }),
    ...backupLoops({ db: system, log, hints }),
    ...notificationLoops({
      db: system,
      log,
      masterKey: replica.masterKey,
      mailer,
      webhooks: {
        allowPrivate: config.webhookAllowPrivate,
        resolve: resolveWithSystem,
        deadlineMs: webhookDeadlineMs,
      },
    }),
  ]);
  replica.onStop("worker", async () => {
    for (const end of stopListening) end();
    await Promise.all([worker.stop(), watch.stop(), loops.stop()]);
    mailer?.close();
  });
}

/** Serves the API. @returns its address */
export async function startApiRole(replica: Replica): Promise<string> {
  const { config, system, api, hints, log, metrics, authorities } = replica;
  const routes = createRouteTable();
  const fleet = createFleetView();
  const addresses = async () => {
    const brokerUrl = replica.brokerUrl();
    if (brokerUrl === undefined)
      throw new DomainError(
        "unavailable",
        "BROKER_UNKNOWN",
        "No replica runs a broker that the host could be told of.",
      );
    return await Promise.resolve({ gatewayAddress: replica.gatewayAddress, brokerUrl });
  };
  const storePool = openStorePool(replica.systemUrl, redriveConnectionsMax);
  replica.onStop("retries of samples", () => storePool.close());
  registerRoutes(routes, {
    hints,
    fleet,
    sagas: podSagas(fleet),
    issuing: { authorities, addresses },
    defaultRegion: config.defaultRegion,
    masterKey: replica.masterKey,
    webhookRules: { allowPrivate: config.webhookAllowPrivate },
    sampleIntervalMs: config.sampleIntervalMs,
    secureCookies: config.secureCookies,
    storePool,
    deadLetterMetrics: deadLetterMetrics(metrics, system, log),
  });
  const shutdown = new AbortController();
  const app = createApp({
    routes,
    system,
    api,
    log,
    metrics,
    readiness: replica.readiness,
    version: readVersion(),
    trustedProxies: config.trustedProxies,
    shutdown: shutdown.signal,
  });
  return await listen(replica, app.fetch, () => shutdown.abort());
}

/** Serves the health pages of a replica without the role `api`, at the same port. @returns its address */
export async function startHealthPages(replica: Replica): Promise<string> {
  return await listen(replica, createHealthApp(replica).fetch, () => {});
}

async function listen(
  { config, onStop }: Replica,
  fetch: (request: Request) => Response | Promise<Response>,
  beforeClose: () => void,
): Promise<string> {
  const { server, port } = await new Promise<{ server: ServerType; port: number }>((resolve, reject) => {
    const starting = serve({ fetch, hostname: config.httpHost, port: config.httpPort }, (info: AddressInfo) =>
      resolve({ server: starting, port: info.port }),
    );
    starting.once("error", reject);
  });
  onStop("HTTP", async () => {
    beforeClose();
    await new Promise((closed) => server.close(closed));
  });
  return `http://${config.httpHost === "0.0.0.0" ? "localhost" : config.httpHost}:${port}`;
}
