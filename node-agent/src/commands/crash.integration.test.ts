import { type Command, CommandOutcome, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { describe, expect, test } from "vitest";
import { type AgentScenario, connectedScenario, podCommands } from "../../../test/support/agent-scenario.ts";
import { until } from "../../../test/support/until.ts";

const { COMMAND_OUTCOME_SUCCEEDED: succeeded, COMMAND_OUTCOME_INTERRUPTED: interrupted } = CommandOutcome;

type Pod = ReturnType<typeof podCommands>;

/** Runs commands to their ends. */
async function prepare({ gateway }: AgentScenario, commands: readonly Command[]): Promise<void> {
  for (const command of commands) {
    gateway.command(command);
    expect(await gateway.result(command.commandId)).toMatchObject({ outcome: succeeded });
  }
}

/** Kills the agent while the given `pct` subcommand runs, and starts the next one. */
async function killDuring(scenario: AgentScenario, command: Command, subcommand: string): Promise<void> {
  const { agent, gateway } = scenario;
  agent.host.setFaults([{ match: { command: subcommand }, effect: { kind: "delay", ms: 700 }, times: 1 }]);
  const before = (await agent.host.invocations()).length;
  gateway.command(command);
  await until(`pct ${subcommand}`, async () => {
    const fresh = (await agent.host.invocations()).slice(before);
    return fresh.some(({ argv, endedAt }) => argv.includes(subcommand) && endedAt === undefined);
  });
  await agent.kill("SIGKILL");
  expect(gateway.results(command.commandId)).toEqual([]);
  agent.start();
}

const viewOf = async ({ agent }: AgentScenario, vmid: number) =>
  (await agent.host.containers()).find((view) => view.vmid === vmid);

describe("an agent that is killed with SIGKILL goes on where it was", () => {
  const cases: [string, (pod: Pod) => Command[], (pod: Pod) => Command, string, "stopped" | "running" | "gone"][] = [
    ["ensure_container, while it clones", () => [], (pod) => pod.create(), "clone", "stopped"],
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
    await until("the acceptance", () =>
      gateway.received.some(({ $case, value }) => $case === "accepted" && value.commandId === inspect.commandId),
    );
    await agent.kill("SIGKILL");
    agent.start();
    expect(await gateway.result(inspect.commandId)).toMatchObject({ error: { code: "NO_ADDRESS", retryable: true } });
  });

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
