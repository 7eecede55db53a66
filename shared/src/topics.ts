/** MQTT topics of one node. */
export interface NodeTopics {
  /** SampleBatch, agent to control plane. */
  readonly samples: string;
  /** SampleAcks, control plane to agent: the only proof that samples are stored. */
  readonly acks: string;
  /** Heartbeat, agent to control plane. */
  readonly heartbeat: string;
  /** NodePresence, retained; also the agent's last will. */
  readonly status: string;
}

/** The topics of a node; its id is the common name of its certificate. */
export function nodeTopics(nodeId: string): NodeTopics {
  const prefix = `cloudpods/v1/nodes/${nodeId}`;
  return {
    samples: `${prefix}/samples`,
    acks: `${prefix}/acks`,
    heartbeat: `${prefix}/heartbeat`,
    status: `${prefix}/status`,
  };
}

/** Largest payload of one message in bytes; brokers are configured to refuse more. */
export const MAX_MESSAGE_BYTES = 256 * 1024;

/** Last part of a node's topic. */
export type NodeChannel = keyof NodeTopics;

const nodeChannels: readonly string[] = ["samples", "acks", "heartbeat", "status"] satisfies NodeChannel[];

/** Node and channel of a topic, or undefined when it is not exactly a node's topic. */
export function parseNodeTopic(topic: string): { nodeId: string; channel: NodeChannel } | undefined {
  const parts = topic.split("/");
  const [product, version, nodes, nodeId, channel] = parts;
  if (parts.length !== 5 || product !== "cloudpods" || version !== "v1" || nodes !== "nodes") return undefined;
  return nodeId === undefined || nodeId === "" || !isNodeChannel(channel) ? undefined : { nodeId, channel };
}

function isNodeChannel(text: string | undefined): text is NodeChannel {
  return text !== undefined && nodeChannels.includes(text);
}
