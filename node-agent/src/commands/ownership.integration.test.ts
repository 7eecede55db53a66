import { type OwnedPod, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { expect, test } from "vitest";
import { type AgentScenario, connectedScenario, podCommands } from "../../../test/support/agent-scenario.ts";
import { until } from "../../../test/support/until.ts";
import { runTool } from "../../../test/simulated-host/run-tool.ts";

type Pod = ReturnType<typeof podCommands>;

const owned = ({ podId, vmid }: Pod, change: Partial<OwnedPod> = {}): OwnedPod => ({
  podId,
  vmid,
  generation: 1n,
  desiredPower: Power.POWER_RUNNING,
  ...change,
});

async function isRunning({ agent }: AgentScenario, { vmid }: Pod): Promise<boolean> {
  return (await agent.host.containers()).some((view) => view.vmid === vmid && view.running);
}

/** A host with running pods whose power is then cut; the agent is not started again. */
async function afterPowerCut(count: number) {
  const scenario = await connectedScenario();
  const { agent, gateway } = scenario;
  const pods = Array.from({ length: count }, (_, index) => podCommands(agent.host, 100_001 + index));
  for (const command of pods.flatMap((pod) => [pod.create(), pod.start()])) {
    gateway.command(command);
    expect(await gateway.result(command.commandId, 40_000)).toMatchObject({ error: undefined });
  }
  await agent.kill("SIGKILL");
  await agent.host.reboot();
  for (const pod of pods) expect(await isRunning(scenario, pod)).toBe(false);
  return { ...scenario, pods };
}

test("after a boot only what the control plane still places here is started", async () => {
  const scenario = await afterPowerCut(3);
  const { agent, gateway, pods } = scenario;
  const [kept, stopped, gone] = pods;
  if (kept === undefined || stopped === undefined || gone === undefined) throw new Error("three pods were made");
  gateway.setWelcome({ ownedPods: [owned(kept), owned(stopped, { desiredPower: Power.POWER_STOPPED })] });
  agent.start();
  expect((await gateway.session(2)).awaitingOwnership).toBe(true);
  await agent.logged({ msg: "owned containers were started after a boot of the host", started: 1 });
  expect(await isRunning(scenario, kept)).toBe(true);
  expect(await isRunning(scenario, stopped)).toBe(false);
  expect(await isRunning(scenario, gone)).toBe(false);
  // The next process of the same boot asks nobody.
  await agent.kill("SIGKILL");
  agent.start();
  expect((await gateway.session(3)).awaitingOwnership).toBe(false);
});

test("a command that the power cut interrupted is not resumed for a pod that moved away", async () => {
  const scenario = await afterPowerCut(1);
  const { agent, gateway, pods } = scenario;
  const [pod] = pods;
  if (pod === undefined) throw new Error("a pod was made");
  // The wish reaches an agent that dies before it acts, on a host that boots right after.
  gateway.setWelcome({ ownedPods: [owned(pod, { desiredPower: Power.POWER_STOPPED })] });
  agent.start();
  await gateway.session(2);
  agent.host.setFaults([{ match: { command: "start" }, effect: { kind: "delay", ms: 3_000 } }]);
  const start = pod.start();
  gateway.command(start);
  await until(
    "the start",
    async () => (await agent.host.invocations()).filter(({ argv }) => argv.includes("start"))[1],
  );
  await agent.kill("SIGKILL");
  await agent.host.reboot();
  agent.host.clearFaults();
  gateway.setWelcome({ ownedPods: [] });
  agent.start();
  expect(await gateway.result(start.commandId)).toMatchObject({ error: { code: "STALE_GENERATION" } });
  expect(await isRunning(scenario, pod)).toBe(false);
});

test("without the control plane nothing starts until an operator on the host says so", async () => {
  const scenario = await afterPowerCut(1);
  const { agent, gateway, pods } = scenario;
  const [pod] = pods;
  if (pod === undefined) throw new Error("a pod was made");
  gateway.stop();
  agent.start();
  await agent.logged({ msg: "no session with the control plane", code: "GATEWAY_UNREACHABLE" });
  expect(await isRunning(scenario, pod)).toBe(false);
  expect(await agent.run("start-owned")).toMatchObject({ exitCode: 0 });
  await until("the container", () => isRunning(scenario, pod));
});

test("after a boot a copy whose pod another host owns is stopped before the host's own pods start", async () => {
  const scenario = await afterPowerCut(2);
  const { agent, gateway, pods } = scenario;
  const [kept, moved] = pods;
  if (kept === undefined || moved === undefined) throw new Error("two pods were made");
  // Somebody had set it to start with the host.
  expect(await runTool(agent.host.paths.pct, "start", String(moved.vmid))).toMatchObject({ exitCode: 0 });
  gateway.setWelcome({ ownedPods: [owned(kept)], placedElsewhere: [owned(moved, { generation: 2n })] });
  agent.start();
  await agent.logged({ msg: "owned containers were started after a boot of the host", started: 1 });
  expect([await isRunning(scenario, moved), await isRunning(scenario, kept)]).toEqual([false, true]);
  const begun = async (subcommand: string, { vmid }: Pod): Promise<number> => {
    const calls = (await agent.host.invocations()).filter(({ argv }) => argv[1] === subcommand);
    return calls.findLast(({ argv }) => argv.includes(String(vmid)))?.startedAt ?? Number.NaN;
  };
  expect(await begun("stop", moved)).toBeLessThan(await begun("start", kept));
});

async function withRunningPod() {
  const scenario = await connectedScenario();
  const pod = podCommands(scenario.agent.host);
  for (const command of [pod.create(), pod.start()]) {
    scenario.gateway.command(command);
    await scenario.gateway.result(command.commandId);
  }
  return { ...scenario, pod };
}

test("a copy is stopped once the host's configuration can be read, although it could not when the session began", async () => {
  const scenario = await withRunningPod();
  const { agent, gateway, pod } = scenario;
  gateway.setWelcome({
    // Read when the Hello has come: what it says of the host was known, and is not any more.
    get placedElsewhere() {
      agent.host.setFaults([{ pmxcfsDown: true }]);
      return [owned(pod, { generation: 2n })];
    },
  });
  gateway.endSession();
  await gateway.session(2);
  await agent.logged({
    msg: "the host's configuration is not readable yet; copies of older placements are looked for later",
  });
  expect(await isRunning(scenario, pod)).toBe(true);
  agent.host.clearFaults();
  await until("the stop", async () => !(await isRunning(scenario, pod)));
});

test("a copy that could not be stopped is stopped later, whatever was in the way", async () => {
  const scenario = await withRunningPod();
  const { agent, gateway, pod } = scenario;
  const inTheWay = { kind: "exit", code: 25, stderr: "Invalid argument: not now" } as const;
  agent.host.setFaults([{ match: { program: "pct", command: "stop" }, effect: inTheWay }]);
  gateway.setWelcome({ placedElsewhere: [owned(pod, { generation: 2n })] });
  gateway.endSession();
  await gateway.session(2);
  await agent.logged({ msg: "the power of a container could not be changed" });
  expect(await isRunning(scenario, pod)).toBe(true);
  agent.host.clearFaults();
  await until("the stop", async () => !(await isRunning(scenario, pod)));
});

test("a copy of an older placement is stopped when the session says that a newer one holds", async () => {
  const scenario = await connectedScenario();
  const { agent, gateway } = scenario;
  const pod = podCommands(agent.host);
  const stranger = podCommands(agent.host, 100_002);
  for (const command of [pod.create(), pod.start(), stranger.create(), stranger.start()]) {
    gateway.command(command);
    await gateway.result(command.commandId);
  }
  gateway.setWelcome({ ownedPods: [owned(pod, { generation: 2n })] });
  gateway.endSession();
  await gateway.session(2);
  await until("the stop", async () => !(await isRunning(scenario, pod)));
  // What the control plane does not list is not touched.
  expect(await isRunning(scenario, stranger)).toBe(true);
});
