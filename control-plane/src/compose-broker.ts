import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { startBroker, type Broker } from "./broker/start-broker.ts";
import type { Replica } from "./compose-roles.ts";
import type { Config } from "./config.ts";
import { isNodeAuthorized } from "./nodes/node-certificates.ts";
import type { Database } from "./platform/database.ts";
import { holdReplicaLock } from "./platform/replica-lock.ts";
import { findEmbeddedBroker } from "./replicas.ts";

/** Where the broker is, as far as this replica knows. */
export interface BrokerAddress {
  /** `mqtts://host:port`; undefined until a broker has been found, and never again after that. */
  readonly url: () => string | undefined;
  /** Fulfilled with the first address. */
  readonly found: Promise<string>;
  /** The address of the embedded broker while it runs here. */
  readonly own: () => string | undefined;
  readonly setOwn: (url: string | undefined) => void;
}

/** How soon a broker that moved to another replica is found. */
const brokerLookMs = 2_000;
/** A hint that a host was removed or replaced may be lost. */
const brokerReviewMs = 60_000;
/** A replica that is second starts without waiting for its turn. */
const firstTurnMs = 3_000;
const retryMs = { first: 500, most: 15_000 };

/** Keeps an eye on where the embedded broker is; nothing to keep where another one is configured. */
export async function followBroker(
  config: Config,
  system: Database,
  log: Logger,
  onStop: Replica["onStop"],
): Promise<BrokerAddress> {
  const first = Promise.withResolvers<string>();
  let own: string | undefined;
  let known = config.mqttUrl;
  const learn = (url: string | undefined): void => {
    if (url === undefined) return;
    known = url;
    first.resolve(url);
  };
  learn(known);
  if (config.mqttUrl === undefined) {
    const look = async (): Promise<void> => learn(own ?? (await findEmbeddedBroker(system)));
    await look();
    const timer = setInterval(
      () => void look().catch((error: unknown) => log.debug({ err: error }, "cannot look for the broker")),
      brokerLookMs,
    );
    onStop("broker look-out", () => clearInterval(timer));
  }
  return {
    url: () => own ?? known,
    found: first.promise,
    own: () => own,
    setOwn(url) {
      own = url;
      learn(url);
    },
  };
}

/**
 * Runs the embedded broker for as long as this replica holds the lock: two brokers would split the agents.
 * Returns when it runs here or on another replica. Once the replica has started, a broker that cannot start, e.g.
 * because the replica that ran it still ends on the same port, is tried again until the lock is lost.
 * @throws when it cannot start here at the replica's own start, e.g. because its port is taken
 */
export async function startBrokerRole(replica: Replica): Promise<void> {
  const { log } = replica;
  let running: Broker | undefined;
  let turn = new AbortController();
  let change = Promise.resolve();
  const first = Promise.withResolvers<void>();
  const begin = async (signal: AbortSignal): Promise<void> => {
    running = await openPatiently(replica, signal, (error) => {
      first.reject(error);
      log.error({ err: error }, "the embedded broker cannot be started; trying again");
    });
    if (running === undefined) return;
    // The heartbeat of the replica announces it again.
    await replica
      .announceBroker(`mqtts://${replica.config.publicHost}:${running.port}`)
      .catch((error: unknown) => log.warn({ err: error }, "the embedded broker cannot be announced"));
    first.resolve();
  };
  const end = async (): Promise<void> => {
    const former = running;
    running = undefined;
    if (former === undefined) return;
    await former.close();
    await replica.announceBroker(undefined);
  };
  const then = (work: () => Promise<void>): void => {
    change = change
      .then(work)
      .catch((error: unknown) => log.error({ err: error }, "the embedded broker cannot be handed on"));
  };
  const lock = holdReplicaLock(
    "broker",
    replica.systemUrl,
    {
      acquired() {
        turn = new AbortController();
        const { signal } = turn;
        then(() => begin(signal));
      },
      lost() {
        turn.abort();
        then(end);
      },
    },
    log,
  );
  // Removed and replaced hosts may still be connected.
  const review = (nodeId?: string): void =>
    void running
      ?.reviewNodes(nodeId)
      .catch((error: unknown) => log.warn({ err: error }, "cannot look which hosts may stay connected"));
  const stopListening = replica.hints.on("node_sessions", review);
  const reviewing = setInterval(review, brokerReviewMs);
  replica.onCertificateRenewed(() => running?.updateTls(replica.serverTls()));
  replica.onStop("broker", async () => {
    clearInterval(reviewing);
    stopListening();
    await lock.release();
    await change;
  });
  await Promise.race([first.promise, sleep(firstTurnMs)]);
}

/** Opens the broker, with growing pauses between attempts; undefined when it is aborted. */
async function openPatiently(
  replica: Replica,
  signal: AbortSignal,
  onFailure: (error: unknown) => void,
): Promise<Broker | undefined> {
  for (let pauseMs = retryMs.first; !signal.aborted; pauseMs = Math.min(2 * pauseMs, retryMs.most)) {
    try {
      return await openBroker(replica);
    } catch (error) {
      onFailure(error);
    }
    // Rejects when aborted, which the condition asks next.
    await sleep(pauseMs, undefined, { signal }).catch(() => {});
  }
  return undefined;
}

async function openBroker({ config, system, log, metrics, serverTls }: Replica): Promise<Broker> {
  return await startBroker({
    tls: serverTls(),
    host: config.brokerHost,
    port: config.brokerPort,
    authorizeNode: (nodeId, serial) => isNodeAuthorized(system, nodeId, serial),
    log,
    registry: metrics,
  });
}
