import type { Client } from "aedes";
import type { BrokerIdentity } from "./access-rules.ts";

/** A client of the broker and whose it is. */
export interface ConnectedClient {
  readonly client: Client;
  readonly identity: BrokerIdentity;
  /** Of its certificate, lower-case hex; empty when the connection was gone already. */
  readonly serial: string;
}

/** Everybody who is connected, found by connection and by node: a fleet's connections are not to be walked for one node. */
export class ConnectedClients {
  readonly #byClient = new Map<Client, ConnectedClient>();
  readonly #byNode = new Map<string, Set<ConnectedClient>>();

  get size(): number {
    return this.#byClient.size;
  }

  add(connected: ConnectedClient): void {
    this.#byClient.set(connected.client, connected);
    if (connected.identity.kind !== "node") return;
    const { nodeId } = connected.identity;
    const those = this.#byNode.get(nodeId);
    if (those === undefined) this.#byNode.set(nodeId, new Set([connected]));
    else those.add(connected);
  }

  delete(client: Client): void {
    const connected = this.#byClient.get(client);
    if (connected === undefined) return;
    this.#byClient.delete(client);
    if (connected.identity.kind !== "node") return;
    const { nodeId } = connected.identity;
    const those = this.#byNode.get(nodeId);
    those?.delete(connected);
    if (those?.size === 0) this.#byNode.delete(nodeId);
  }

  get(client: Client): ConnectedClient | undefined {
    return this.#byClient.get(client);
  }

  /** Connections of a node, or of all nodes. */
  ofNodes(nodeId?: string): ConnectedClient[] {
    return nodeId === undefined
      ? [...this.#byNode.values()].flatMap((those) => [...those])
      : [...(this.#byNode.get(nodeId) ?? [])];
  }
}
