import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, CommandOutcome, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { describe, expect, onTestFinished, test } from "vitest";
import { enrolByHand } from "../../../test/support/agent-process.ts";
import {
  type AgentScenario,
  agentScenario,
  connectedScenario,
  podCommands,
} from "../../../test/support/agent-scenario.ts";
import { startTestEnrolment } from "../../../test/support/test-enrolment.ts";
import { until } from "../../../test/support/until.ts";
import { loadIdentity } from "../enrolment/identity-files.ts";

const {
  COMMAND_OUTCOME_SUCCEEDED: succeeded,
  COMMAND_OUTCOME_INTERRUPTED: interrupted,
  COMMAND_OUTCOME_CANCELLED: cancelled,
} = CommandOutcome;

type Pod = ReturnType<typeof podCommands>;

/** Runs commands to their ends. */
async function prepare({ gateway }: AgentScenario, commands: readonly Command[]): Promise<void> {
  for (const command of commands) {
    gateway.command(command);
    expect(await gateway.result(command.commandId)).toMatchObject({ outcome: succeeded });
  }
}

/** Kills the agent while the given `pct` subcommand runs, starts the next one and lets the subcommand go on. */
async function killDuring(scenario: AgentScenario, command: Command, subcommand: string): Promise<void> {
  const { agent, gateway } = scenario;
  const released = join(agent.host.root, "released");
  agent.host.setFaults([{ match: { command: subcommand }, effect: { kind: "hold", until: released }, times: 1 }]);
  const before = (await agent.host.invocations()).length;
  gateway.command(command);
  await until(`pct ${subcommand}`, async () => {
    const fresh = (await agent.host.invocations()).slice(before);
    return fresh.some(({ argv, endedAt }) => argv.includes(subcommand) && endedAt === undefined);
  });
  await agent.kill("SIGKILL");
  expect(gateway.results(command.commandId)).toEqual([]);
  agent.start();
  await gateway.session(2);
  writeFileSync(released, "");
}

function fromArchive(pod: Pod): Command {
  const volumeId = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst";
  const spec = { ...pod.spec, source: { $case: "archive" as const, value: { volumeId } } };
  return pod.command({ $case: "ensureContainer", value: { spec } });
}

const accepted = ({ gateway }: AgentScenario, { commandId }: Command) =>
  until("the acceptance", () =>
    gateway.received.some(({ $case, value }) => $case === "accepted" && value.commandId === commandId),
  );

const viewOf = async ({ agent }: AgentScenario, vmid: number) =>
  (await agent.host.containers()).find((view) => view.vmid === vmid);

describe("an agent that is killed with SIGKILL goes on where it was", () => {
  const cases: [string, (pod: Pod) => Command[], (pod: Pod) => Command, string, "stopped" | "running" | "gone"][] = [
    ["ensure_container, while it clones", () => [], (pod) => pod.create(), "clone", "stopped"],
    ["ensure_container, while it unpacks an archive", () => [], fromArchive, "create", "stopped"],
    ["ensure_container, while it grows the disk", () => [], (pod) => pod.create(), "resize", "stopped"],
    ["ensure_power running", (pod) => [pod.create()], (pod) => pod.start(), "start", "running"],
    ["ensure_power stopped", (pod) => [pod.create(), pod.start()], (pod) => pod.stop(), "shutdown", "stopped"],
    ["ensure_absent", (pod) => [pod.create()], (pod) => pod.remove(), "destroy", "gone"],
  ];
  test.each(cases)("%s", async (_, first, victim, subcommand, wanted) => {
    const scenario = await connectedScenario();
    const pod = podCommands(scenario.agent.host);
    await prepare(scenario, first(pod));
    const command = victim(pod);
    await killDuring(scenario, command, subcommand);
    const hello = await scenario.gateway.session(2);
    expect(hello.awaitingOwnership).toBe(false);
    const result = await scenario.gateway.result(command.commandId, 30_000);
    expect(result).toMatchObject({ outcome: succeeded });
    const view = await viewOf(scenario, pod.vmid);
    expect(view === undefined ? "gone" : view.running ? "running" : "stopped").toBe(wanted);
    expect(view?.config["lock"]).toBeUndefined();
    // The program that the dead agent had started was waited for, not started again.
    const runs = (await scenario.agent.host.invocations()).filter(({ argv }) => argv.includes(subcommand));
    expect(runs).toHaveLength(1);
  });

  test("reboot: the deed is not done twice, and the answer says what was found", async () => {
    const scenario = await connectedScenario();
    const pod = podCommands(scenario.agent.host);
    await prepare(scenario, [pod.create(), pod.start()]);
    const reboot = pod.reboot();
    await killDuring(scenario, reboot, "reboot");
    expect(await scenario.gateway.result(reboot.commandId, 30_000)).toMatchObject({
      outcome: interrupted,
      observation: { podId: pod.podId, power: Power.POWER_RUNNING },
    });
    const reboots = (await scenario.agent.host.invocations()).filter(({ argv }) => argv.includes("reboot"));
    expect(reboots).toHaveLength(1);
  });

  test("inspect: it looks again", async () => {
    const scenario = await connectedScenario();
    const { gateway, agent } = scenario;
    const pod = podCommands(agent.host);
    await prepare(scenario, [pod.create()]);
    // A stopped container gets no address, so the look waits.
    const inspect = pod.inspect(3_000);
    gateway.command(inspect);
    await accepted(scenario, inspect);
    await agent.kill("SIGKILL");
    agent.start();
    expect(await gateway.result(inspect.commandId)).toMatchObject({ error: { code: "NO_ADDRESS", retryable: true } });
  });

  test("cancel_command: what it cancels ends once, whole or not at all, and both are answered", async () => {
    const scenario = await connectedScenario();
    const { gateway, agent } = scenario;
    const pod = podCommands(agent.host);
    // Slow enough to be cancelled in the middle, and to roll back after the agent is gone.
    agent.host.setFaults([{ match: { command: "clone" }, effect: { kind: "delay", ms: 3_000 }, times: 1 }]);
    const create = pod.create();
    gateway.command(create);
    await until("the clone", async () =>
      (await agent.host.invocations()).some(({ argv, endedAt }) => argv.includes("clone") && endedAt === undefined),
    );
    const cancel = Command.fromPartial({
      commandId: randomUUID(),
      fleetEpoch: 1n,
      op: { $case: "cancelCommand", value: { commandId: create.commandId } },
    });
    gateway.command(cancel);
    await accepted(scenario, cancel);
    await agent.kill("SIGKILL");
    agent.start();
    expect(await gateway.result(cancel.commandId, 30_000)).toMatchObject({ outcome: succeeded });
    const { outcome } = await gateway.result(create.commandId, 30_000);
    expect([succeeded, cancelled]).toContain(outcome);
    const view = await viewOf(scenario, pod.vmid);
    expect(view !== undefined).toBe(outcome === succeeded);
    for (const vmid of [pod.vmid, agent.host.templateVmid])
      expect((await viewOf(scenario, vmid))?.config["lock"]).toBeUndefined();
  }, 60_000);

  test("renew_certificate: the answer that it never heard costs nothing", async () => {
    const { authority, gateway, nodeId, agent } = await agentScenario();
    const enrolment = await startTestEnrolment({ authority, gatewayAddress: gateway.address });
    onTestFinished(() => enrolment.stop());
    await enrolByHand(agent.stateDir, authority, { nodeId, gatewayAddress: gateway.address, serverUrl: enrolment.url });
    enrolment.knowCertificate(nodeId, loadIdentity(agent.stateDir).certificatePem);
    agent.start();
    const before = await gateway.session(1);
    const release = enrolment.holdAnswers();
    const renew = Command.fromPartial({
      commandId: randomUUID(),
      fleetEpoch: 1n,
      op: { $case: "renewCertificate", value: {} },
    });
    gateway.command(renew);
    await until("the request", () => enrolment.requests.some(({ path }) => path === "/api/nodes/renew"));
    await agent.kill("SIGKILL");
    release();
    agent.start();
    expect(await gateway.result(renew.commandId, 30_000)).toMatchObject({ outcome: succeeded });
    await until("a session with the new certificate", () =>
      gateway.hellos().some(({ certificateSerial }) => certificateSerial !== before.certificateSerial),
    );
  }, 60_000);

  test("a command that was accepted and not begun is begun, and one that ended is not repeated", async () => {
    const scenario = await connectedScenario();
    const { gateway, agent } = scenario;
    const pod = podCommands(agent.host);
    const [create, start] = [pod.create(), pod.start()];
    agent.host.setFaults([{ match: { command: "clone" }, effect: { kind: "delay", ms: 700 }, times: 1 }]);
    gateway.confirmResults(false);
    gateway.command(create);
    gateway.command(start);
    await until("both acceptances", () => gateway.received.filter(({ $case }) => $case === "accepted")[1]);
    await agent.kill("SIGKILL");
    agent.start();
    expect(await gateway.result(start.commandId)).toMatchObject({ outcome: succeeded });
    await agent.kill("SIGKILL");
    agent.start();
    gateway.confirmResults(true);
    const repeats = () => Math.min(gateway.results(create.commandId).length, gateway.results(start.commandId).length);
    await until("the repeated results", () => repeats() >= 2);
    const invocations = await agent.host.invocations();
    for (const subcommand of ["clone", "start"]) {
      expect(invocations.filter(({ argv }) => argv.includes(subcommand))).toHaveLength(1);
    }
  });
});
