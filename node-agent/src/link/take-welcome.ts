import type { Welcome } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { AgentError, messageOf } from "../agent-error.ts";
import type { Ownership } from "../commands/ownership.ts";
import { certificatesIn, loadIdentity, saveAddresses, saveTrustedAuthorities } from "../enrolment/identity-files.ts";
import type { Identity } from "../enrolment/identity-files.ts";
import type { Sampler } from "../sampling/sampler.ts";
import type { Spool } from "../spool/spool.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

/** Parts of the agent that a Welcome sets. */
export interface WelcomeOptions {
  readonly stateDir: string;
  readonly spool: Pick<Spool, "startSession">;
  readonly sampler: Pick<Sampler, "setIntervalMs"> | undefined;
  readonly telemetry: Pick<Telemetry, "configure" | "updateCredentials" | "offerNow">;
  readonly ownership: Pick<Ownership, "applyWelcome">;
  readonly log: Logger;
}

/** Bounds against a control plane that is set up wrongly, in ms. */
const sampleInterval = { least: 1_000, most: 3_600_000 };
const heartbeatInterval = { least: 1_000, most: 600_000 };

/**
 * Takes over what the control plane says at the start of a session.
 *
 * @throws AgentError WRONG_NODE when the gateway takes this host for another one.
 */
export function takeWelcome(welcome: Welcome, options: WelcomeOptions): void {
  const { stateDir, spool, sampler, telemetry, ownership, log } = options;
  const before = loadIdentity(stateDir);
  if (welcome.nodeId !== before.nodeId) {
    throw new AgentError("WRONG_NODE", `The gateway takes this host for ${welcome.nodeId}; it is ${before.nodeId}.`);
  }
  if (trustBundle(stateDir, welcome.caBundlePem, log))
    telemetry.updateCredentials(telemetryCredentials(loadIdentity(stateDir)));
  if (welcome.brokerUrl !== "") saveAddresses(stateDir, { brokerUrl: welcome.brokerUrl });
  telemetry.configure({
    brokerUrl: loadIdentity(stateDir).brokerUrl,
    heartbeatIntervalMs: within(heartbeatInterval, welcome.heartbeatIntervalMs),
  });
  sampler?.setIntervalMs(within(sampleInterval, welcome.sampleIntervalMs));
  spool.startSession(welcome.spoolContiguousSeq);
  telemetry.offerNow();
  ownership.applyWelcome(welcome);
}

/** The identity as the publisher takes it. */
export function telemetryCredentials(identity: Identity): Parameters<Telemetry["updateCredentials"]>[0] {
  return {
    certificatePem: identity.certificatePem,
    privateKeyPem: identity.keyPem,
    caBundlePem: identity.caPem,
  };
}

/** Replaces the trusted authorities by those of the session, which a trusted one has vouched for. */
function trustBundle(stateDir: string, bundlePem: string, log: Logger): boolean {
  try {
    if (certificatesIn(bundlePem).length === 0) return false;
    return saveTrustedAuthorities(stateDir, bundlePem);
  } catch (error) {
    log.error({ reason: messageOf(error) }, "the bundle of authorities in the Welcome is unreadable and ignored");
    return false;
  }
}

function within(bounds: { readonly least: number; readonly most: number }, value: number): number {
  return Math.min(bounds.most, Math.max(bounds.least, value));
}
