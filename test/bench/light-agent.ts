import { randomUUID } from "node:crypto";
import { Hello } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { newId } from "@cloudpods/shared/ids";
import { createDisciplinedClock } from "../../node-agent/src/clock/disciplined-clock.ts";
import { createGatewayLink } from "../../node-agent/src/link/gateway-link.ts";
import { createTelemetry } from "../../node-agent/src/telemetry/telemetry.ts";
import { pino } from "pino";
import { smallInventory } from "../support/connected-agent.ts";
import type { EnrolledHost } from "../support/enrolled-host.ts";

/** Where the fleet dials. */
export interface FleetAddresses {
  /** `host:port` */
  readonly gatewayAddress: string;
  /** `mqtts://host:port` */
  readonly brokerUrl: string;
}

/** An agent without a host: the real link and the real telemetry, and an empty host behind them. */
export interface LightAgent {
  start(): void;
  stop(): Promise<void>;
  hasSession(): boolean;
  hasBroker(): boolean;
}

const agentVersion = "0.1.0";
/** Until the Welcome says otherwise, as in the agent. */
const firstHeartbeatIntervalMs = 10_000;
const log = pino({ level: "silent" });

/** What is counted of all agents together. */
export interface LightAgentCounts {
  /** A heartbeat is sent. */
  readonly onBeat: () => void;
  /** A session ended or did not come about, with the code that an operator on the host sees. */
  readonly onFault: (code: string) => void;
}

/** Makes the agent of an enrolled host. */
export function createLightAgent(host: EnrolledHost, addresses: FleetAddresses, counts: LightAgentCounts): LightAgent {
  const [bootId, spoolId] = [randomUUID(), newId()];
  const clock = createDisciplinedClock({ bootId });
  const identity = { ...host, ...addresses, serverUrl: "" };
  let hasSession = false;
  const telemetry = createTelemetry({
    nodeId: host.nodeId,
    bootId,
    brokerUrl: addresses.brokerUrl,
    credentials: { certificatePem: host.certificatePem, privateKeyPem: host.keyPem, caBundlePem: host.caPem },
    heartbeatIntervalMs: firstHeartbeatIntervalMs,
    collectHeartbeat() {
      counts.onBeat();
      const wallClockMs = BigInt(Date.now());
      const beat = { bootId, spoolId, agentVersion, wallClockMs, certificateSerial: host.serial };
      return Promise.resolve(Heartbeat.fromPartial({ ...beat, memoryTotalMb: 65_536, memoryAvailableMb: 32_768 }));
    },
    spool: { takeOffers: () => [], retryNow: () => {}, acknowledge: () => {} },
    log,
  });
  const inventory = () => Promise.resolve(smallInventory());
  const link = createGatewayLink({
    loadIdentity: () => identity,
    renewCertificate: () => Promise.resolve(),
    onState({ isConnected, faultCode }) {
      hasSession = isConnected;
      if (faultCode !== undefined) counts.onFault(faultCode);
    },
    buildHello: async () =>
      Hello.fromPartial({
        protocolVersion: 1,
        bootId,
        machineId: host.machineId,
        agentVersion,
        pveVersion: "9.2.11",
        capacity: { cpuCores: 32, memoryMb: 65_536 },
        inventory: await inventory(),
        spoolId,
        spoolNextSeq: 1n,
        certificateSerial: host.serial,
      }),
    onWelcome: ({ brokerUrl, heartbeatIntervalMs }) =>
      telemetry.configure({ brokerUrl: brokerUrl === "" ? addresses.brokerUrl : brokerUrl, heartbeatIntervalMs }),
    onCommand: ({ commandId }) => Promise.reject(new Error(`nobody works here: ${commandId}`)),
    answerQuery: ({ queryId }) => Promise.reject(new Error(`nobody answers here: ${queryId}`)),
    inventory,
    clock,
    journal: { unconfirmed: () => [], confirm: () => {} },
    log,
  });
  return {
    start() {
      telemetry.start();
      link.start();
    },
    stop: async () => void (await Promise.all([link.stop(), telemetry.stop()])),
    hasSession: () => hasSession,
    hasBroker: () => telemetry.isConnected(),
  };
}
