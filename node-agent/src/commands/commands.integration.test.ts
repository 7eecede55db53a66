import { randomUUID } from "node:crypto";
import {
  Command,
  CommandOutcome,
  ConnectResponse,
  Power,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { describe, expect, test } from "vitest";
import { connectedScenario, podCommands } from "../../../test/support/agent-scenario.ts";
import { until } from "../../../test/support/until.ts";

const { COMMAND_OUTCOME_SUCCEEDED: succeeded } = CommandOutcome;

test("a pod is made, started, inspected, rebooted, stopped and removed", async () => {
  const { gateway, agent } = await connectedScenario();
  const pod = podCommands(agent.host);
  const done = async (command: Command) => {
    gateway.command(command);
    const result = await gateway.result(command.commandId);
    expect(result).toMatchObject({ outcome: succeeded, error: undefined, generation: 1n });
    return result;
  };
  const created = await done(pod.create());
  expect(created.observation).toMatchObject({
    vmid: pod.vmid,
    podId: pod.podId,
    generation: 1n,
    power: Power.POWER_STOPPED,
  });
  expect(created.commandLines.some((line) => line.includes("pct clone"))).toBe(true);
  expect(created.finishedAtMs).toBeGreaterThanOrEqual(created.startedAtMs);
  expect((await done(pod.start())).observation?.power).toBe(Power.POWER_RUNNING);
  expect((await done(pod.inspect(10_000))).observation?.ip).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
  expect((await done(pod.reboot())).observation?.power).toBe(Power.POWER_RUNNING);
  expect((await done(pod.stop())).observation?.power).toBe(Power.POWER_STOPPED);
  expect((await done(pod.remove())).observation).toBeUndefined();
  expect((await agent.host.containers()).map(({ vmid }) => vmid)).not.toContain(pod.vmid);
});

describe("deliveries", () => {
  test("a command that comes three times is run once and answered each time", async () => {
    const { gateway, agent } = await connectedScenario();
    const pod = podCommands(agent.host);
    const create = pod.create();
    gateway.command(create);
    gateway.command(create);
    await gateway.result(create.commandId);
    const before = (await agent.host.invocations()).length;
    gateway.command(create);
    await until("the repeated answer", () => gateway.results(create.commandId)[1]);
    expect(gateway.results(create.commandId)[1]).toEqual(gateway.results(create.commandId)[0]);
    const invocations = await agent.host.invocations();
    expect(invocations).toHaveLength(before);
    expect(invocations.filter(({ argv }) => argv.includes("clone"))).toHaveLength(1);
  });

  test("an older wish after a newer one changes nothing", async () => {
    const { gateway, agent } = await connectedScenario();
    const pod = podCommands(agent.host);
    const [create, stop, start] = [pod.create(), pod.stop(), pod.start()];
    for (const command of [create, start, stop]) gateway.command(command);
    expect(await gateway.result(stop.commandId)).toMatchObject({ outcome: CommandOutcome.COMMAND_OUTCOME_SUPERSEDED });
    expect(await gateway.result(start.commandId)).toMatchObject({ outcome: succeeded });
    const newer = pod.start({ generation: 2n });
    gateway.command(newer);
    expect(await gateway.result(newer.commandId)).toMatchObject({ outcome: succeeded });
    const older = pod.stop({ generation: 1n });
    gateway.command(older);
    expect(await gateway.result(older.commandId)).toMatchObject({
      outcome: CommandOutcome.COMMAND_OUTCOME_STALE_GENERATION,
    });
    const view = (await agent.host.containers()).find(({ vmid }) => vmid === pod.vmid);
    expect(view?.running).toBe(true);
  });

  test("a deed that waited longer than its time to live is not done", async () => {
    const { gateway, agent } = await connectedScenario();
    const pod = podCommands(agent.host);
    agent.host.setFaults([{ match: { command: "clone" }, effect: { kind: "delay", ms: 1_500 } }]);
    const [create, start, reboot] = [pod.create(), pod.start(), pod.reboot({ ttlMs: 200n })];
    for (const command of [create, start, reboot]) gateway.command(command);
    expect(await gateway.result(reboot.commandId)).toMatchObject({ outcome: CommandOutcome.COMMAND_OUTCOME_EXPIRED });
    expect((await agent.host.invocations()).some(({ argv }) => argv.includes("reboot"))).toBe(false);
  });

  test("truncated and malformed messages end the session and change nothing", async () => {
    const { gateway, agent } = await connectedScenario();
    const pod = podCommands(agent.host);
    const create = pod.create();
    const whole = Buffer.from(ConnectResponse.encode({ message: { $case: "command", value: create } }).finish());
    gateway.sayBytes(whole.subarray(0, whole.length - 5));
    await gateway.session(2);
    gateway.sayBytes(Buffer.alloc(12, 0xff));
    await gateway.session(3);
    // Cut between two fields it is a message without an operation.
    const partial = pod.create({ op: undefined });
    gateway.command(partial);
    expect(await gateway.result(partial.commandId)).toMatchObject({
      outcome: CommandOutcome.COMMAND_OUTCOME_UNSUPPORTED,
    });
    expect(await agent.host.invocations()).toEqual(
      (await agent.host.invocations()).filter(({ argv }) => !argv.includes("clone")),
    );
    gateway.command({ ...create, commandId: partial.commandId });
    await until("the whole command", () => gateway.results(partial.commandId)[1]);
    expect(gateway.results(partial.commandId)[1]).toMatchObject({ outcome: succeeded });
  });

  test("results are repeated until they are confirmed, over a restart of the gateway's session too", async () => {
    const { gateway, agent } = await connectedScenario();
    gateway.confirmResults(false);
    const inspect = podCommands(agent.host).inspect();
    gateway.command(inspect);
    await gateway.result(inspect.commandId);
    gateway.endSession();
    await gateway.session(2);
    gateway.confirmResults(true);
    await until("the repeated result", () => gateway.results(inspect.commandId)[1]);
    const signsOfLife = () => gateway.received.filter(({ $case }) => $case === "clockRequest").length;
    const told = () => gateway.results(inspect.commandId).length;
    // A confirmation that its session did not live to see is asked for once more; then there is silence.
    let [before, session] = [-1, 2];
    while (told() !== before && session < 8) {
      before = told();
      const signs = signsOfLife();
      gateway.endSession();
      await gateway.session(++session);
      await until("a sign of life", () => signsOfLife() > signs || undefined);
    }
    expect(told()).toBe(before);
  });
});

test("a command can be cancelled while it waits and while it runs", async () => {
  const { gateway, agent } = await connectedScenario();
  const pod = podCommands(agent.host);
  agent.host.setFaults([{ match: { command: "clone" }, effect: { kind: "delay", ms: 20_000 } }]);
  const [create, start] = [pod.create(), pod.start()];
  gateway.command(create);
  gateway.command(start);
  await until("the clone", async () => (await agent.host.invocations()).some(({ argv }) => argv.includes("clone")));
  const cancelOf = (commandId: string): Command =>
    Command.fromPartial({
      commandId: randomUUID(),
      fleetEpoch: 1n,
      op: { $case: "cancelCommand", value: { commandId } },
    });
  const cancelStart = cancelOf(start.commandId);
  gateway.command(cancelStart);
  const cancelCreate = cancelOf(create.commandId);
  gateway.command(cancelCreate);
  expect(await gateway.result(create.commandId)).toMatchObject({ outcome: CommandOutcome.COMMAND_OUTCOME_CANCELLED });
  expect(await gateway.result(start.commandId)).toMatchObject({ outcome: CommandOutcome.COMMAND_OUTCOME_CANCELLED });
  expect(await gateway.result(cancelCreate.commandId)).toMatchObject({ outcome: succeeded });
  expect(await gateway.result(cancelStart.commandId)).toMatchObject({ outcome: succeeded });
  const unknown = cancelOf(randomUUID());
  gateway.command(unknown);
  expect(await gateway.result(unknown.commandId)).toMatchObject({ error: { code: "UNKNOWN_COMMAND" } });
});

test("the plan of a wish is told without doing anything", async () => {
  const { gateway, agent } = await connectedScenario();
  const { podId, spec } = podCommands(agent.host);
  const plan = { podId, vmid: 0, generation: 1n, spec, power: Power.POWER_RUNNING, absent: false, volumes: [] };
  const queryId = randomUUID();
  gateway.say({ $case: "query", value: { queryId, question: { $case: "plan", value: plan } } });
  const answer = await until("the answer", () =>
    gateway.received.find((message) => message.$case === "queryAnswer" && message.value.queryId === queryId),
  );
  expect(answer.value).toMatchObject({ error: undefined });
  expect(JSON.stringify(answer.$case === "queryAnswer" && answer.value.commandLines)).toContain("pct clone");
  expect((await agent.host.invocations()).some(({ argv }) => argv.includes("clone"))).toBe(false);
});
