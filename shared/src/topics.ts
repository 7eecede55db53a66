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
