import { isUuid } from "@cloudpods/shared/ids";
import { parseNodeTopic } from "@cloudpods/shared/topics";

/** Who a connection belongs to, by the common name of its certificate. */
export type BrokerIdentity =
  | { readonly kind: "node"; readonly nodeId: string; readonly commonName: string }
  | { readonly kind: "control-plane"; readonly commonName: string };

/** Common name of every replica of the control plane. */
const replicaName = "control-plane";

/** Reads a common name: a node's is its id, a replica's is `control-plane`; else undefined. */
export function parseIdentity(commonName: unknown): BrokerIdentity | undefined {
  if (typeof commonName !== "string") return undefined;
  if (isUuid(commonName)) return { kind: "node", nodeId: commonName.toLowerCase(), commonName };
  return commonName === replicaName ? { kind: "control-plane", commonName } : undefined;
}

/** A message that somebody wants to publish. */
export interface PublishAttempt {
  readonly topic: string;
  readonly qos: number;
  readonly retain: boolean;
}

/**
 * A node publishes its own samples, heartbeats and status (only the last may be retained), the control
 * plane acknowledgements and its own probes. QoS 2 would make the broker keep messages and nobody needs it.
 */
export function mayPublish(identity: BrokerIdentity, attempt: PublishAttempt): boolean {
  if (attempt.qos > 1) return false;
  const target = parseNodeTopic(attempt.topic);
  if (identity.kind === "control-plane") {
    return !attempt.retain && (target?.channel === "acks" || attempt.topic.startsWith("cloudpods/v1/control-plane/"));
  }
  if (target === undefined || target.nodeId !== identity.nodeId || target.channel === "acks") return false;
  return !attempt.retain || target.channel === "status";
}

/** A node reads its own acknowledgements; the control plane reads everything of ours. */
export function maySubscribe(identity: BrokerIdentity, filter: string): boolean {
  if (identity.kind === "control-plane") return filter.startsWith("cloudpods/v1/");
  const target = parseNodeTopic(filter);
  return target !== undefined && target.nodeId === identity.nodeId && target.channel === "acks";
}
