import { newId } from "@cloudpods/shared/ids";
import { Registry } from "prom-client";
import {
  startAgentGateway,
  type AgentGateway,
  type AgentGatewayOptions,
} from "../../control-plane/src/agent-gateway/start-agent-gateway.ts";
import { issueServerCertificate } from "../../control-plane/src/nodes/certificate-authority.ts";
import type { IssuingDeps } from "../../control-plane/src/nodes/node-certificates.ts";
import { openHints, type Hints } from "../../control-plane/src/platform/hints.ts";
import { createLog } from "../../control-plane/src/platform/log.ts";
import { recordAddress } from "../../control-plane/src/pods/addresses.ts";
import { recordCommandProgress } from "../../control-plane/src/tasks/task-events.ts";
import type { TestDatabase } from "./postgres.ts";

/** The real gateway of one replica, with hints of its own. */
export interface GatewayUnderTest {
  readonly gateway: AgentGateway;
  readonly port: number;
  readonly hints: Hints;
  /** Value of a counter with these labels; 0 when it never counted. */
  count(name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
  stop(): Promise<void>;
}

/** Starts a gateway on a free port. */
export async function startGatewayUnderTest(
  db: Pick<TestDatabase, "system" | "systemUrl">,
  deps: IssuingDeps,
  changes: Partial<AgentGatewayOptions> = {},
): Promise<GatewayUnderTest> {
  const log = createLog({ level: process.env["TEST_LOG_LEVEL"] ?? "silent" });
  const registry = new Registry();
  const hints = openHints({ url: db.systemUrl, log });
  await hints.listening;
  const certificate = await issueServerCertificate(deps.authorities.active, ["localhost", "127.0.0.1"], new Date());
  const gateway = await startAgentGateway({
    db: db.system,
    hints,
    log,
    registry,
    tls: { cert: certificate.pem, key: certificate.privateKeyPem, ca: deps.authorities.pems },
    host: "127.0.0.1",
    port: 0,
    settings: {
      replicaId: newId(),
      sampleIntervalMs: 60_000,
      heartbeatIntervalMs: 10_000,
      inventoryIntervalMs: 60_000,
      brokerUrl: async () => "mqtts://127.0.0.1:8883",
    },
    hooks: { onAddress: recordAddress, onProgress: recordCommandProgress },
    ...changes,
  });
  return {
    gateway,
    port: gateway.port,
    hints,
    async count(name, labels = {}) {
      const metric = (await registry.getMetricsAsJSON()).find((candidate) => candidate.name === name);
      const value = metric?.values.find((sample) =>
        Object.entries(labels).every(([label, wanted]) => sample.labels[label] === wanted),
      );
      return value?.value ?? 0;
    },
    async stop() {
      await gateway.stop();
      await hints.close();
    },
  };
}
