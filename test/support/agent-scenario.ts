import { randomUUID } from "node:crypto";
import { Command, ContainerSpec, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { onTestFinished } from "vitest";
import type { SigningAuthority } from "../../control-plane/src/nodes/certificate-authority.ts";
import type { SimulatedHost } from "../simulated-host/host.ts";
import { type AgentOnHost, type AgentOnHostOptions, createAgentOnHost, enrolByHand } from "./agent-process.ts";
import { makeTestAuthority } from "./test-authority.ts";
import { type TestGateway, startTestGateway } from "./test-gateway.ts";

/** An enrolled agent on a simulated host and the gateway that it dials. */
export interface AgentScenario {
  readonly nodeId: string;
  readonly authority: SigningAuthority;
  readonly gateway: TestGateway;
  readonly agent: AgentOnHost;
}

/** Makes a scenario that ends with the test; the agent is not started yet. */
export async function agentScenario(options: AgentOnHostOptions = {}): Promise<AgentScenario> {
  const nodeId = randomUUID();
  const authority = await makeTestAuthority();
  const gateway = await startTestGateway({ authority, nodeId });
  const agent = await createAgentOnHost(options);
  onTestFinished(async () => {
    await agent.dispose();
    gateway.stop();
  });
  await enrolByHand(agent.stateDir, authority, { nodeId, gatewayAddress: gateway.address });
  return { nodeId, authority, gateway, agent };
}

/** A scenario whose agent has its first session. */
export async function connectedScenario(options: AgentOnHostOptions = {}): Promise<AgentScenario> {
  const scenario = await agentScenario(options);
  scenario.agent.start();
  await scenario.gateway.session(1);
  return scenario;
}

/** The pod of one test and the commands about it, each newer than the one before. */
export function podCommands(host: SimulatedHost, vmid = 100_001) {
  const podId = randomUUID();
  let revision = 0n;
  const command = (op: NonNullable<Command["op"]>, change: Partial<Command> = {}): Command =>
    Command.fromPartial({
      commandId: randomUUID(),
      podId,
      vmid,
      fleetEpoch: 1n,
      generation: 1n,
      revision: (revision += 1n),
      op,
      ...change,
    });
  const spec = ContainerSpec.fromPartial({
    hostname: "pod-1.example.org",
    cores: 1,
    memoryMb: 512,
    swapMb: 128,
    diskGb: 4,
    storage: "local-lvm",
    network: { bridge: "vmbr0", mac: "BC:24:11:00:00:01", ip: "dhcp", rateLimitKibPerSecond: 1_280 },
    source: { $case: "clone", value: { templateVmid: host.templateVmid, full: false } },
    unprivileged: true,
    nesting: true,
  });
  const power = (wanted: Power) =>
    ({ $case: "ensurePower", value: { power: wanted, shutdownTimeoutSeconds: 5 } }) as const;
  return {
    podId,
    vmid,
    spec,
    command,
    create: (change: Partial<Command> = {}) => command({ $case: "ensureContainer", value: { spec } }, change),
    start: (change: Partial<Command> = {}) => command(power(Power.POWER_RUNNING), change),
    stop: (change: Partial<Command> = {}) => command(power(Power.POWER_STOPPED), change),
    remove: (change: Partial<Command> = {}) => command({ $case: "ensureAbsent", value: { volumes: [] } }, change),
    reboot: (change: Partial<Command> = {}) =>
      command({ $case: "reboot", value: { shutdownTimeoutSeconds: 5 } }, change),
    inspect: (awaitAddressMs = 0) => command({ $case: "inspect", value: { awaitAddressMs, beforeRestore: undefined } }),
  };
}
