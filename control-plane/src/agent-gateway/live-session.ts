import type { ConnectResponse, Welcome } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { SessionRef } from "../nodes/session-fence.ts";
import type { SessionEnd } from "./session-end.ts";

/** A session that has been welcomed on this replica. */
export interface LiveSession extends SessionRef {
  /** Of the certificate, lower-case hex. */
  readonly serial: string;
  /** What the agent was told at the beginning. */
  readonly welcome: Pick<Welcome, "brokerUrl">;
  /** Commands that the agent of this session has and that are not finished. */
  readonly inFlight: Set<string>;
  /** Writes to the stream; a stream that is over ignores it, one that cannot keep up is ended. */
  send(message: NonNullable<ConnectResponse["message"]>): void;
  /** Ends the stream with this reason. */
  end(reason: SessionEnd): void;
}
