import type { Readable } from "node:stream";
import type { PeerCertificate, TLSSocket } from "node:tls";
import { Aedes, type AedesPublishPacket, type Client, type PublishPacket } from "aedes";
import type { Logger } from "pino";
import { Counter, Gauge, type Registry } from "prom-client";
import { MAX_MESSAGE_BYTES, nodeTopics, parseNodeTopic } from "@cloudpods/shared/topics";
import { listenTls, type ServerTls } from "../platform/tls-listener.ts";
import { mayPublish, maySubscribe, parseIdentity } from "./access-rules.ts";
import { ConnectedClients } from "./connected-clients.ts";
import { limitPacketBytes } from "./limit-packet-bytes.ts";
import { SampleReaders } from "./sample-readers.ts";

/** What the embedded broker needs. */
export interface BrokerOptions {
  readonly tls: ServerTls;
  /** Address to listen on. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /**
   * Whether a node with a valid certificate may be connected now; asked for each new connection and by
   * `reviewNodes`. A removed node or a revoked serial (lower-case hex) is answered false.
   */
  readonly authorizeNode: (nodeId: string, certificateSerial: string) => Promise<boolean>;
  readonly log: Logger;
  readonly registry: Registry;
}

/** A running broker. */
export interface Broker {
  readonly port: number;
  /**
   * Asks again whether the connected nodes, or the one, may be connected, and closes the connections of those that
   * may not: a node was removed, or another machine took its place. Returns how many were closed.
   */
  reviewNodes(nodeId?: string): Promise<number>;
  /** Uses a new certificate or new authorities for connections made from now on. */
  updateTls(tls: ServerTls): void;
  /** Closes all connections and stops listening. */
  close(): Promise<void>;
}

/** TLS records, headers and topic around a payload of the largest size. */
const packetBytesMax = MAX_MESSAGE_BYTES + 1_024;

/**
 * How long samples wait for somebody who reads them. Shorter than nodes take a silent broker for alive (22 s); after it they are
 * confirmed to nobody, and their node offers them again.
 */
const unreadMs = 10_000;

const metricNames = {
  refusals: "cloudpods_broker_refusals_total",
  connections: "cloudpods_broker_connections",
} as const;

/**
 * Starts an MQTT 3.1.1 broker inside this process. Every client shows a certificate of our authority;
 * its common name decides what it may publish and read, whatever it claims in its messages.
 */
export async function startBroker(options: BrokerOptions): Promise<Broker> {
  const sessions = new ConnectedClients();
  const refusals = new Counter({
    name: metricNames.refusals,
    help: "Connections, messages and subscriptions that the embedded broker refused.",
    labelNames: ["reason"],
    registers: [options.registry],
  });
  new Gauge({
    name: metricNames.connections,
    help: "Clients connected to the embedded broker.",
    registers: [options.registry],
    collect() {
      this.set(sessions.size);
    },
  });
  const refuse = (reason: string, commonName: string): Error => {
    refusals.inc({ reason });
    options.log.warn({ reason, commonName }, "broker refused a client");
    return new Error(`refused: ${reason}`);
  };
  const aedes = await Aedes.createBroker({ id: "cloudpods" });
  const readers = followReaders(aedes);
  applyAccessRules(aedes, { sessions, readers }, options.authorizeNode, refuse);
  skipVainLooks(aedes);
  aedes.on("clientDisconnect", (client) => sessions.delete(client));
  aedes.on("connectionError", (_client, error) => options.log.debug({ err: error }, "broker connection failed"));

  const forgetMetrics = (): void => {
    // The broker moves between replicas, and may come back to this one.
    for (const name of Object.values(metricNames)) options.registry.removeSingleMetric(name);
  };
  const listener = await listenTls({
    tls: options.tls,
    host: options.host,
    port: options.port,
    onConnection(socket) {
      limitPacketBytes(socket, packetBytesMax, () => refuse("MESSAGE_TOO_LARGE", commonNameOf(socket)));
      aedes.handle(socket);
    },
    onRefused(reason, error) {
      refusals.inc({ reason });
      options.log.debug({ err: error, reason }, "broker refused a connection");
    },
  }).catch(async (error: unknown) => {
    forgetMetrics();
    await new Promise<void>((resolve) => aedes.close(resolve));
    throw error;
  });
  return {
    port: listener.port,
    updateTls: listener.updateTls,
    async reviewNodes(nodeId) {
      let closed = 0;
      for (const { client, identity, serial } of sessions.ofNodes(nodeId)) {
        if (identity.kind !== "node" || (await options.authorizeNode(identity.nodeId, serial))) continue;
        refuse("NODE_REFUSED", identity.commonName);
        client.conn.destroy();
        closed += 1;
      }
      return closed;
    },
    async close() {
      forgetMetrics();
      listener.close();
      readers.releaseAll();
      await new Promise<void>((resolve) => aedes.close(resolve));
    },
  };
}

/** Where the broker finds retained messages; its types leave it out. */
interface RetainedMessages {
  createRetainedStreamCombi(filters: readonly string[]): Readable;
}

/**
 * For each subscription the broker matches all retained messages, one of each node, against its filter. Acknowledgements are
 * never retained, and every node subscribes to its own.
 */
function skipVainLooks(aedes: Aedes): void {
  const { persistence } = aedes as unknown as { readonly persistence: RetainedMessages };
  const look = persistence.createRetainedStreamCombi.bind(persistence);
  persistence.createRetainedStreamCombi = (filters) =>
    look(filters.filter((filter) => parseNodeTopic(filter)?.channel !== "acks"));
}

function commonNameOf(socket: TLSSocket): string {
  const name: unknown = socket.getPeerCertificate().subject?.CN;
  return typeof name === "string" ? name : "";
}

/** Only the control plane may read the samples of all nodes. */
function followReaders(aedes: Aedes): SampleReaders<Client> {
  const readers = new SampleReaders<Client>();
  const { samples } = nodeTopics("+");
  aedes.on("subscribe", (subscriptions, client) => {
    if (subscriptions.some(({ topic }) => topic === samples)) readers.add(client);
  });
  aedes.on("unsubscribe", (topics, client) => {
    if (topics.includes(samples)) readers.delete(client);
  });
  aedes.on("clientDisconnect", (client) => readers.delete(client));
  return readers;
}

function applyAccessRules(
  aedes: Aedes,
  { sessions, readers }: { readonly sessions: ConnectedClients; readonly readers: SampleReaders<Client> },
  authorizeNode: BrokerOptions["authorizeNode"],
  refuse: (reason: string, commonName: string) => Error,
): void {
  aedes.preConnect = (client, packet, done) => {
    const identity = parseIdentity(commonNameOf(socketOf(client)));
    if (identity === undefined) return done(refuse("UNKNOWN_IDENTITY", commonNameOf(socketOf(client))), false);
    // A client id is a claim: with the identity in front nobody can displace somebody else's session.
    packet.clientId = `${identity.commonName}/${packet.clientId}`;
    // Nothing is kept for absent clients: what matters is offered again by its sender.
    packet.clean = true;
    const will = packet.will;
    if (
      will !== undefined &&
      !mayPublish(identity, { topic: will.topic, qos: will.qos ?? 0, retain: will.retain ?? false })
    ) {
      return done(refuse("FOREIGN_WILL", identity.commonName), false);
    }
    sessions.add({ client, identity, serial: serialOf(client) });
    socketOf(client).once("close", () => sessions.delete(client));
    done(null, true);
  };
  aedes.authenticate = (client, _username, _password, done) => {
    const connected = sessions.get(client);
    if (connected === undefined) return done(notAuthorized("refused"), false);
    const { identity, serial } = connected;
    if (identity.kind === "control-plane") return done(null, true);
    authorizeNode(identity.nodeId, serial).then(
      (allowed) =>
        allowed ? done(null, true) : done(notAuthorized(refuse("NODE_REFUSED", identity.commonName).message), false),
      (error: unknown) => done(unavailable(error), false),
    );
  };
  aedes.authorizePublish = (client, packet: PublishPacket | AedesPublishPacket, done) => {
    const identity = client === null ? undefined : sessions.get(client)?.identity;
    if (identity !== undefined && mayPublish(identity, packet)) {
      // A broker that has just taken over is there before those who read from it: what it confirms meanwhile is lost to them.
      if (!readers.isRead && parseNodeTopic(packet.topic)?.channel === "samples")
        return readers.whenRead(unreadMs, () => done(null));
      return done(null);
    }
    // An error closes the connection: an acknowledged and dropped message would look like a stored one.
    done(refuse("FOREIGN_TOPIC", identity?.commonName ?? ""));
  };
  aedes.authorizeSubscribe = (client, subscription, done) => {
    const identity = sessions.get(client)?.identity;
    // This broker does not share subscriptions: a granted one would never deliver anything.
    if (identity?.kind === "control-plane" && subscription.topic.startsWith("$share/")) return done(null, null);
    if (identity !== undefined && maySubscribe(identity, subscription.topic)) return done(null, subscription);
    done(refuse("FOREIGN_SUBSCRIPTION", identity?.commonName ?? ""));
  };
}

/** Lower-case hex; empty when the connection is gone. */
function serialOf(client: Client): string {
  const certificate: Partial<PeerCertificate> | null = socketOf(client).getPeerCertificate();
  return certificate?.serialNumber?.toLowerCase() ?? "";
}

function socketOf(client: Client): TLSSocket {
  // Only connections of the TLS server are handed to the broker.
  return client.conn as TLSSocket;
}

/** MQTT 3.1.1, section 3.2.2.3: 5 is "not authorized". */
function notAuthorized(message: string): Error & { returnCode: 5 } {
  return Object.assign(new Error(message), { returnCode: 5 as const });
}

/** MQTT 3.1.1, section 3.2.2.3: 3 is "server unavailable". */
function unavailable(cause: unknown): Error & { returnCode: 3 } {
  return Object.assign(new Error("the node cannot be looked up now", { cause }), { returnCode: 3 as const });
}
