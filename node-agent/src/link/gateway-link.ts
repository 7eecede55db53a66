import { setTimeout as sleep } from "node:timers/promises";
import { credentials } from "@grpc/grpc-js";
import { createAgentGatewayClient } from "@cloudpods/proto/agent-gateway-service";
import { AgentError, messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";
import type { AgentMessage } from "../commands/command-schedule.ts";
import { checkCertificate } from "../enrolment/check-certificate.ts";
import type { Identity } from "../enrolment/identity-files.ts";
import { type DialFault, diagnoseDial } from "./diagnose-dial.ts";
import { type Session, type SessionDoors, SessionFailure, openSession } from "./session.ts";
import { createTrustAnew } from "./trust-anew.ts";

/** What the link needs. */
export interface GatewayLinkOptions extends SessionDoors {
  /** The identity in force; read anew before each dial. */
  readonly loadIdentity: () => Identity;
  readonly renewCertificate: () => Promise<void>;
  /** Told whenever the state of the link changes. */
  readonly onState: (state: LinkState) => void;
}

/** What an operator on the host may know about the link. */
export interface LinkState {
  readonly isConnected: boolean;
  /** Stable code of what ended or prevents the session; undefined while connected. */
  readonly faultCode?: string;
  readonly faultMessage?: string;
}

/** Keeps a session with the gateway, for ever. */
export interface GatewayLink {
  start(): void;
  /** Sends in the present session; without one the message is dropped. */
  send(message: AgentMessage): void;
  /** Ends the session so that the next one uses a new certificate; it follows at once. */
  reconnect(): void;
  /** Ends the session and dials no more. */
  stop(): Promise<void>;
}

/** The whole fleet may come back at once; the cap bounds how long a host stays away after that. */
const backoff = { baseMs: 500, capMs: 30_000 };
/** A session that lived this long was sound: the next failure starts with short waits again. */
const soundSessionMs = 30_000;
/** A gateway may ask a host to wait, but not to stay away. */
const maxAskedWaitMs = 300_000;
const hourMs = 3_600_000;
/** A diagnosis is a second dial: a fleet that cannot reach a busy gateway must not double its work. */
const diagnosisIntervalMs = 60_000;

const channelOptions = {
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.max_receive_message_length": 4 * 1_048_576,
  "grpc.enable_retries": 0,
  // Each dial has its own connection: a pooled one would go on with the old certificate.
  "grpc.use_local_subchannel_pool": 1,
} as const;

/** Makes the link; it dials nothing before `start`. */
export function createGatewayLink(options: GatewayLinkOptions): GatewayLink {
  const { log, onState } = options;
  const stopping = new AbortController();
  let session: Session | undefined;
  let loop = Promise.resolve();
  const prepareIdentity = createIdentityPreparer(options);
  let explain = createExplainer();
  const { renewCertificate } = options;
  const trustAnew = createTrustAnew({ renewCertificate, monotonicMs: () => performance.now(), log });

  const runSession = async (): Promise<{ readonly reason: AgentError; readonly wasSound: boolean }> => {
    const identity = await prepareIdentity();
    const client = createAgentGatewayClient(
      identity.gatewayAddress,
      credentials.createSsl(
        Buffer.from(identity.caPem),
        Buffer.from(identity.keyPem),
        Buffer.from(identity.certificatePem),
      ),
      channelOptions,
    );
    const openedAtMs = performance.now();
    try {
      const opened = openSession(client.connect(), {
        ...options,
        onWelcome: (welcome) => {
          options.onWelcome(welcome);
          // What was wrong before is wrong no more.
          explain = createExplainer();
          log.info({ sessionEpoch: String(welcome.sessionEpoch), gateway: identity.gatewayAddress }, "session opened");
          onState({ isConnected: true });
        },
      });
      session = opened;
      if (stopping.signal.aborted) opened.close(stopped());
      const reason = await opened.ended;
      if (!opened.isWelcomed() && reason.code === "GRPC_UNAVAILABLE") throw await explain(identity, reason);
      return { reason, wasSound: opened.isWelcomed() && performance.now() - openedAtMs > soundSessionMs };
    } finally {
      session = undefined;
      client.close();
    }
  };
  /** What was found of a dial holds no more once it was made with other authorities. */
  const hasNewTrust = async ({ code }: AgentError): Promise<boolean> => {
    const isNew = code === "WRONG_CA" && (await trustAnew());
    if (isNew) explain = createExplainer();
    return isNew;
  };
  const run = async (): Promise<void> => {
    for (let failures = 0; !stopping.signal.aborted; failures += 1) {
      let fault: AgentError;
      try {
        const { reason, wasSound } = await runSession();
        if (wasSound || reason.code === "RECONNECT") failures = 0;
        fault = reason;
      } catch (error) {
        fault = error instanceof AgentError ? error : new AgentError("LINK_FAILED", messageOf(error), { cause: error });
      }
      if (stopping.signal.aborted) return;
      onState({ isConnected: false, faultCode: fault.code, faultMessage: fault.message });
      const isAtOnce = fault.code === "RECONNECT" || (await hasNewTrust(fault));
      const waitMs = isAtOnce ? 0 : waitAfter(fault, failures);
      log.warn({ code: fault.code, reason: fault.message, waitMs }, "no session with the control plane");
      // Rejects only when the agent stops, which the loop asks next.
      await sleep(waitMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  return {
    start: () => void (loop = run()),
    send: (message) => session?.send(message),
    reconnect: () =>
      session?.close(new AgentError("RECONNECT", "The identity of this host changed.", { retryable: true })),
    async stop() {
      stopping.abort();
      session?.close(stopped());
      await loop;
    },
  };
}

/**
 * Reads the identity before a dial and renews a certificate that has expired; at most once an hour,
 * should the clock of the host be to blame.
 */
function createIdentityPreparer({ loadIdentity, renewCertificate, clock, log }: GatewayLinkOptions) {
  let renewedAtMs = Number.NEGATIVE_INFINITY;
  return async (): Promise<Identity> => {
    const identity = loadIdentity();
    const fault = checkCertificate(identity.certificatePem, identity.caPem, clock.epochMs());
    if (fault === undefined) return identity;
    log.warn({ code: fault.code }, fault.message);
    if (fault.code !== "CERTIFICATE_EXPIRED") return identity;
    if (performance.now() - renewedAtMs < hourMs) {
      throw new AgentError("CLOCK_WRONG", "A certificate that was just renewed looks expired: set this host's clock.");
    }
    await renewCertificate();
    renewedAtMs = performance.now();
    return loadIdentity();
  };
}

function waitAfter(fault: AgentError, failures: number): number {
  const askedMs = fault instanceof SessionFailure ? Math.min(fault.retryAfterMs, maxAskedWaitMs) : 0;
  return Math.max(askedMs, fullJitterMs(failures, Math.random(), backoff));
}

/** Says why no session came about, by a dial of its own; what was found holds for a minute. */
function createExplainer(): (identity: Identity, reason: AgentError) => Promise<AgentError> {
  let diagnosedAtMs = Number.NEGATIVE_INFINITY;
  let fault: DialFault | undefined;
  return async (identity, reason) => {
    if (performance.now() - diagnosedAtMs >= diagnosisIntervalMs) {
      diagnosedAtMs = performance.now();
      fault = await diagnoseDial(identity);
    }
    return fault === undefined ? reason : new AgentError(fault.code, fault.message, { retryable: true, cause: reason });
  };
}

function stopped(): AgentError {
  return new AgentError("STOPPED", "The agent stops.");
}
