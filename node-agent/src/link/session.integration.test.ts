import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, CommandOutcome } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { describe, expect, onTestFinished, test } from "vitest";
import { vouchFor } from "../../../control-plane/src/nodes/certificate-authority.ts";
import { createAgentOnHost, enrolByHand } from "../../../test/support/agent-process.ts";
import { agentScenario, connectedScenario, podCommands } from "../../../test/support/agent-scenario.ts";
import { makeTestAuthority } from "../../../test/support/test-authority.ts";
import { startTestEnrolment } from "../../../test/support/test-enrolment.ts";
import { type TestGatewayOptions, startTestGateway } from "../../../test/support/test-gateway.ts";
import { until } from "../../../test/support/until.ts";
import { loadIdentity } from "../enrolment/identity-files.ts";

const dayMs = 86_400_000;

test("an agent says what it is, is welcomed, and stops when told", async () => {
  const { agent, gateway, nodeId } = await connectedScenario();
  expect(gateway.hellos()[0]).toMatchObject({
    protocolVersion: 1,
    pveName: "pve1",
    pveVersion: expect.stringMatching(/^\d+\.\d+/),
    capacity: { cpuCores: 8, memoryMb: 32_768 },
    inventory: { known: true, quorate: true },
    awaitingOwnership: true,
    machineId: expect.stringMatching(/^[0-9a-f]{64}$/),
  });
  expect(gateway.hellos()[0]?.capabilities).toContain("ensure_container");
  await until("the first question about the time", () =>
    gateway.received.find(({ $case }) => $case === "clockRequest"),
  );
  const status = await agent.run("status");
  expect(JSON.parse(status.stdout)).toMatchObject({
    isRunning: true,
    identity: { nodeId, certificate: { fault: null } },
    agent: { link: { isConnected: true } },
  });
  await agent.kill("SIGTERM");
  expect(agent.log()).toContainEqual(expect.objectContaining({ msg: "agent stops" }));
  expect(JSON.parse((await agent.run("status")).stdout)).toMatchObject({ isRunning: false, agent: null });
});

test("two agents do not share a state directory", async () => {
  const { agent } = await connectedScenario();
  const second = await agent.run("run");
  expect(second).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("STATE_DIR_IN_USE") });
});

test("no secret is in the log, in the status or in what the gateway hears", async () => {
  const { agent, gateway } = await connectedScenario();
  await agent.logged({ msg: "session opened" });
  const secret = readFileSync(join(agent.stateDir, "key.pem"), "utf8").split("\n")[1] ?? "?";
  const { stdout } = await agent.run("status");
  const heard = JSON.stringify(gateway.received, (_, value) => (typeof value === "bigint" ? String(value) : value));
  expect(JSON.stringify(agent.log()) + stdout + heard).not.toContain(secret);
});

test("an idle agent starts no process, however many inventories it takes", async () => {
  const { gateway, agent } = await agentScenario();
  gateway.setWelcome({ inventoryIntervalMs: 1_000 });
  agent.start();
  await agent.logged({ msg: "session opened" });
  const inventories = () => gateway.received.filter(({ $case }) => $case === "inventory").length;
  // proc_pid_stat(5), field 11: page faults of children that were waited for; every process has some.
  const faultsOfChildren = () =>
    Number(readFileSync(`/proc/${agent.pid()}/stat`, "utf8").split(") ")[1]?.split(" ")[8]);
  await until("the first inventory", () => inventories() > 0);
  const before = faultsOfChildren();
  expect(before).toBeGreaterThan(0); // the Hello asked pvesm and pveversion; idle.integration.test.ts watches for hours
  const seen = inventories();
  await until("four inventories more", () => inventories() >= seen + 4);
  expect(faultsOfChildren()).toBe(before);
  const children = () => execFileSync("ps", ["--no-headers", "-o", "pid", "--ppid", String(agent.pid())]).toString();
  // `ps` fails when it has nothing to list.
  expect(children).toThrow("Command failed");
});

describe("the gateway", () => {
  test("may restart: the agent comes back by itself and says so", async () => {
    const { authority, nodeId, gateway, agent } = await connectedScenario();
    gateway.stop();
    await agent.logged({ msg: "no session with the control plane" });
    const again = await startTestGateway({ authority, nodeId, port: Number(gateway.address.split(":")[1]) });
    onTestFinished(() => again.stop());
    const hello = await again.session(1);
    expect(hello.awaitingOwnership).toBe(false);
  });

  test("may replace the authorities over the session, which a trusted one protects", async () => {
    const { authority, gateway, agent } = await agentScenario();
    const next = await makeTestAuthority();
    gateway.setWelcome({ caBundlePem: authority.pem + next.pem });
    agent.start();
    await gateway.session(1);
    await agent.logged({ msg: "session opened" });
    expect(loadIdentity(agent.stateDir).caPem.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
  });

  test("is refused when it takes the host for another one", async () => {
    const { gateway, agent } = await agentScenario();
    gateway.setWelcome({ nodeId: randomUUID() });
    agent.start();
    const line = await agent.logged({ code: "WRONG_NODE" });
    expect(line).toMatchObject({ msg: "no session with the control plane" });
  });

  const faulty: [string, string, () => Promise<Partial<TestGatewayOptions>>][] = [
    ["comes from another authority", "WRONG_CA", async () => ({ authority: await makeTestAuthority() })],
    ["has another name", "WRONG_SERVER_NAME", async () => ({ names: ["gateway.example.com"] })],
  ];
  test.each(faulty)("is refused when its certificate %s, with a reason", async (_, code, change) => {
    const nodeId = randomUUID();
    const authority = await makeTestAuthority();
    const gateway = await startTestGateway({ authority, nodeId, clientAuthority: authority, ...(await change()) });
    const agent = await createAgentOnHost();
    onTestFinished(async () => {
      await agent.dispose();
      gateway.stop();
    });
    await enrolByHand(agent.stateDir, authority, { nodeId, gatewayAddress: gateway.address });
    agent.start();
    await agent.logged({ code });
    expect(gateway.received).toEqual([]);
    expect(JSON.parse((await agent.run("status")).stdout)).toMatchObject({ agent: { link: { faultCode: code } } });
  });

  test("that was at fault and is away now is said to be away", async () => {
    const nodeId = randomUUID();
    const authority = await makeTestAuthority();
    const faulty = await startTestGateway({
      authority: await makeTestAuthority(),
      nodeId,
      clientAuthority: authority,
    });
    const agent = await createAgentOnHost();
    onTestFinished(async () => {
      await agent.dispose();
      faulty.stop();
    });
    await enrolByHand(agent.stateDir, authority, { nodeId, gatewayAddress: faulty.address });
    agent.start();
    await agent.logged({ code: "WRONG_CA" });
    faulty.stop();
    const right = await startTestGateway({ authority, nodeId, port: Number(faulty.address.split(":")[1]) });
    onTestFinished(() => right.stop());
    await right.session(1);
    right.stop();
    await agent.logged({ code: "GATEWAY_UNREACHABLE" });
  });

  test("refuses a host of another authority, and the host says why", async () => {
    const nodeId = randomUUID();
    const [authority, stranger] = [await makeTestAuthority(), await makeTestAuthority()];
    const gateway = await startTestGateway({ authority, nodeId });
    const agent = await createAgentOnHost();
    onTestFinished(async () => {
      await agent.dispose();
      gateway.stop();
    });
    await enrolByHand(agent.stateDir, stranger, { nodeId, gatewayAddress: gateway.address, trusts: authority });
    agent.start();
    await agent.logged({ code: "WRONG_CA" });
    await agent.logged({ code: "CERTIFICATE_REFUSED" });
    expect(gateway.received).toEqual([]);
  });
});

describe("a certificate", () => {
  async function expired() {
    const made = await agentScenario();
    const { authority, gateway, nodeId, agent } = made;
    const enrolment = await startTestEnrolment({ authority, gatewayAddress: gateway.address });
    onTestFinished(() => enrolment.stop());
    const issuedAt = new Date(Date.now() - 400 * dayMs);
    const facts = { nodeId, gatewayAddress: gateway.address, serverUrl: enrolment.url, issuedAt };
    await enrolByHand(agent.stateDir, authority, facts);
    enrolment.knowCertificate(nodeId, loadIdentity(agent.stateDir).certificatePem);
    return { ...made, enrolment };
  }

  test("that expired while the host was off is renewed before the session", async () => {
    const { agent, gateway } = await expired();
    const before = loadIdentity(agent.stateDir).certificatePem;
    agent.start();
    const hello = await gateway.session(1);
    await agent.logged({ code: "CERTIFICATE_EXPIRED" });
    expect(loadIdentity(agent.stateDir).certificatePem).not.toBe(before);
    expect(hello.certificateSerial).not.toBe("");
  });

  test("of a host whose clock is a year behind is named as the clock's fault", async () => {
    const { agent, authority, gateway, nodeId } = await agentScenario();
    const issuedAt = new Date(Date.now() + 365 * dayMs);
    await enrolByHand(agent.stateDir, authority, { nodeId, gatewayAddress: gateway.address, issuedAt });
    agent.start();
    await agent.logged({ code: "CLOCK_WRONG" });
    expect(gateway.received).toEqual([]);
  });

  test.each([
    ["vouched for the gateway's", true],
    ["not vouched for the gateway's", false],
  ])("is renewed at once, and once, when the authority that the host knows has %s", async (_, isVouchedFor) => {
    const nodeId = randomUUID();
    const [former, next] = [await makeTestAuthority(), await makeTestAuthority()];
    const gateway = await startTestGateway({ authority: next, nodeId });
    const enrolment = await startTestEnrolment({ authority: next, gatewayAddress: gateway.address });
    if (isVouchedFor) enrolment.addVoucher(await vouchFor(former, next.pem));
    const agent = await createAgentOnHost();
    onTestFinished(async () => {
      await agent.dispose();
      gateway.stop();
      await enrolment.stop();
    });
    await enrolByHand(agent.stateDir, former, { nodeId, gatewayAddress: gateway.address, serverUrl: enrolment.url });
    enrolment.knowCertificate(nodeId, loadIdentity(agent.stateDir).certificatePem);
    const before = loadIdentity(agent.stateDir);
    agent.start();
    await agent.logged({ code: "WRONG_CA", msg: "no session with the control plane" });
    const renewals = () => enrolment.requests.filter(({ path }) => path === "/api/nodes/renew").length;
    if (isVouchedFor) {
      await gateway.session(1);
      expect(loadIdentity(agent.stateDir).caPem).toContain(next.pem.trim());
    } else {
      const dials = () => agent.log().filter(({ msg }) => msg === "no session with the control plane").length;
      await until("three dials in vain", () => dials() >= 3);
      expect(gateway.received).toEqual([]);
      expect(loadIdentity(agent.stateDir)).toEqual(before);
    }
    expect(renewals()).toBe(1);
  });

  test("is renewed on command and used from then on", async () => {
    const { authority, gateway, nodeId, agent } = await agentScenario();
    const enrolment = await startTestEnrolment({ authority, gatewayAddress: gateway.address });
    onTestFinished(() => enrolment.stop());
    await enrolByHand(agent.stateDir, authority, { nodeId, gatewayAddress: gateway.address, serverUrl: enrolment.url });
    enrolment.knowCertificate(nodeId, loadIdentity(agent.stateDir).certificatePem);
    agent.start();
    const before = await gateway.session(1);
    const renew = Command.fromPartial({
      commandId: randomUUID(),
      fleetEpoch: 1n,
      op: { $case: "renewCertificate", value: {} },
    });
    gateway.command(renew);
    expect(await gateway.result(renew.commandId)).toMatchObject({ outcome: CommandOutcome.COMMAND_OUTCOME_SUCCEEDED });
    const after = await gateway.session(2);
    expect(after.certificateSerial).not.toBe(before.certificateSerial);
  });
});

test("an agent of another role connects and refuses containers", async () => {
  const { gateway, agent } = await connectedScenario({ environment: { CLOUDPODS_AGENT_ROLE: "mail" } });
  expect(gateway.hellos()[0]).toMatchObject({ inventory: { containers: [] }, pveName: "" });
  const create = podCommands(agent.host).create();
  gateway.command(create);
  expect(await gateway.result(create.commandId)).toMatchObject({
    outcome: CommandOutcome.COMMAND_OUTCOME_UNSUPPORTED,
  });
});
