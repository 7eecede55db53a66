import { newId } from "@cloudpods/shared/ids";
import type { Logger } from "pino";
import { followBroker, startBrokerRole } from "./compose-broker.ts";
import {
  startApiRole,
  startGatewayRole,
  startHealthPages,
  startIngestRole,
  startWorkerRole,
  type Replica,
} from "./compose-roles.ts";
import type { Config } from "./config.ts";
import { prepareSharedDatabase, readMasterKey } from "./data-directory.ts";
import { issueServerCertificate } from "./nodes/certificate-authority.ts";
import { followAuthorities } from "./nodes/ensure-certificate-authority.ts";
import { keepCertificate } from "./nodes/keep-certificate.ts";
import { seedPlans } from "./plans/seed-plans.ts";
import { openDatabase, type Database } from "./platform/database.ts";
import { openHints } from "./platform/hints.ts";
import { createMetrics } from "./platform/metrics.ts";
import { announceReplica, withdrawReplica } from "./replicas.ts";
import { assertLoginsAreSafe } from "./security/assert-logins-are-safe.ts";

/** A running replica. */
export interface ControlPlane {
  /** Where the API answers, or only the health pages without the role `api`. */
  readonly url: string;
  /** The owner's login, for what runs in the same process. */
  readonly system: Database;
  /** Stops taking work, finishes or hands back what is in hand, and ends. */
  stop(): Promise<void>;
}

const replicaHeartbeatMs = 10_000;
/** A part that has not stopped by then is left to the end of the process. */
const stopDeadlineMs = 15_000;

/** A part that was started and how it is stopped. */
interface Part {
  readonly name: string;
  readonly stop: () => Promise<void> | void;
}

/** Starts what this replica's roles ask for, in the order in which the parts lean on each other. */
export async function startControlPlane(config: Config, log: Logger): Promise<ControlPlane> {
  const parts: Part[] = [];
  try {
    const replica = await openReplica(config, log, (name, stop) => parts.unshift({ name, stop }));
    if (config.roles.has("broker") && config.mqttUrl === undefined) await startBrokerRole(replica);
    if (config.roles.has("gateway")) await startGatewayRole(replica);
    if (config.roles.has("ingest")) await startIngestRole(replica);
    if (config.roles.has("worker")) startWorkerRole(replica);
    const url = config.roles.has("api") ? await startApiRole(replica) : await startHealthPages(replica);
    log.info({ replicaId: replica.id, roles: [...config.roles], url }, "the control plane runs");
    return { url, system: replica.system, stop: () => stopAll(parts, log) };
  } catch (error) {
    await stopAll(parts, log);
    throw error;
  }
}

async function openReplica(config: Config, log: Logger, onStop: Replica["onStop"]): Promise<Replica> {
  const id = newId();
  const { system, api, systemUrl } = await openDatabases(config, log, onStop);
  const masterKey = await readMasterKey(config);
  const authorities = await followAuthorities(system, masterKey, log);
  onStop("certificate authorities", () => authorities.stop());
  const names = [...new Set([config.publicHost, "localhost", "127.0.0.1"])];
  const certificate = await keepCertificate({
    issue: (now) => issueServerCertificate(authorities.active, names, now),
    log,
  });
  onStop("server certificate", () => certificate.stop());
  // Whoever believes other authorities, or signs by another one, starts over with a certificate of its own.
  authorities.onChange(() => {
    certificate.renewNow();
    void announce().catch((error: unknown) => log.warn({ err: error }, "cannot announce this replica"));
  });
  const hints = openHints({ url: systemUrl, log });
  onStop("hints", () => hints.close());
  const broker = await followBroker(config, system, log, onStop);
  const gatewayAddress = `${config.publicHost}:${config.gatewayPort}`;
  const announce = async (): Promise<void> =>
    await announceReplica(system, {
      id,
      roles: config.roles,
      gatewayAddress: config.roles.has("gateway") ? gatewayAddress : null,
      brokerUrl: broker.own() ?? null,
      authorityIds: authorities.all.map((authority) => authority.id),
      signingAuthorityId: authorities.active.id,
    });
  await announce();
  const heartbeat = setInterval(() => {
    announce().catch((error: unknown) => log.warn({ err: error }, "cannot announce this replica"));
  }, replicaHeartbeatMs);
  onStop("replica", async () => {
    clearInterval(heartbeat);
    await withdrawReplica(system, id);
  });
  return {
    id,
    config,
    log,
    system,
    api,
    systemUrl,
    masterKey,
    authorities,
    hints,
    metrics: createMetrics(),
    readiness: {},
    serverTls: () => ({ cert: certificate.current.pem, key: certificate.current.privateKeyPem, ca: authorities.pems }),
    onCertificateRenewed: (callback) => certificate.onRenewed(callback),
    async announceBroker(url) {
      broker.setOwn(url);
      await announce();
    },
    brokerUrl: broker.url,
    brokerFound: broker.found,
    gatewayAddress,
    onStop,
  };
}

async function openDatabases(
  config: Config,
  log: Logger,
  onStop: Replica["onStop"],
): Promise<{ system: Database; api: Database; systemUrl: string }> {
  const database = await prepareSharedDatabase(config, log);
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

async function stopAll(parts: Part[], log: Logger): Promise<void> {
  for (const { name, stop } of parts.splice(0)) {
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        log.warn({ part: name }, "does not stop; going on");
        resolve();
      }, stopDeadlineMs);
    });
    try {
      await Promise.race([stop(), deadline]);
    } catch (error) {
      log.warn({ err: error, part: name }, "did not stop cleanly");
    } finally {
      clearTimeout(timer);
    }
  }
}
