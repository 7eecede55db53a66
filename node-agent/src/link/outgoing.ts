import type { ConnectRequest } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { AgentMessage } from "../commands/command-schedule.ts";

/** The writing half of a session's stream. */
export interface MessageSink {
  /** False when the stream's buffer is full; it emits "drain" afterwards. */
  write(message: ConnectRequest): boolean;
  once(event: "drain", listener: () => void): unknown;
}

/** Messages to the control plane, in order, bounded. */
export interface Outgoing {
  /** False when the queue is full and the message was dropped. Results are repeated by the session. */
  send(message: AgentMessage): boolean;
}

/** Makes the outgoing queue of one session. Progress gives way to everything else when it is full. */
export function createOutgoing(sink: MessageSink, maxWaiting: number): Outgoing {
  const waiting: AgentMessage[] = [];
  let isBlocked = false;

  const flush = (): void => {
    isBlocked = false;
    for (let message = waiting.shift(); message !== undefined; message = waiting.shift()) {
      if (sink.write({ message })) continue;
      isBlocked = true;
      sink.once("drain", flush);
      return;
    }
  };
  return {
    send(message) {
      if (waiting.length >= maxWaiting) {
        const expendable = waiting.findIndex(({ $case }) => $case === "progress");
        if (message.$case === "progress" || expendable < 0) return false;
        waiting.splice(expendable, 1);
      }
      waiting.push(message);
      if (!isBlocked) flush();
      return true;
    },
  };
}
