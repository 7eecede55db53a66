import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Command, CommandOutcome, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { describe, expect, onTestFinished, test } from "vitest";
import { type SimulatedHost, createSimulatedHost } from "../../../test/simulated-host/host.ts";
import { runTool } from "../../../test/simulated-host/run-tool.ts";
import { type AgentScenario, connectedScenario, podCommands } from "../../../test/support/agent-scenario.ts";
import { until } from "../../../test/support/until.ts";

const { COMMAND_OUTCOME_SUCCEEDED: succeeded, COMMAND_OUTCOME_INTERRUPTED: interrupted } = CommandOutcome;

type Pod = ReturnType<typeof podCommands>;
type Program = "pct" | "pvesm" | "vzdump" | "zstd";

async function prepare({ gateway }: AgentScenario, commands: readonly Command[]): Promise<void> {
  for (const command of commands) {
    gateway.command(command);
    expect(await gateway.result(command.commandId, 40_000)).toMatchObject({ outcome: succeeded });
  }
}

/** Calls of one program with one of its words. */
async function calls({ agent }: AgentScenario, program: Program, word: string) {
  return (await agent.host.invocations()).filter(({ argv }) => argv[0] === program && argv.includes(word));
}

/** Kills the agent while a program runs, starts the next one and waits for the result. */
async function killDuring(scenario: AgentScenario, command: Command, program: Program, word: string) {
  const { agent, gateway } = scenario;
  const before = (await calls(scenario, program, word)).length;
  gateway.command(command);
  await until(`${program} ${word}`, async () => (await calls(scenario, program, word)).length > before, 30_000);
  await agent.kill("SIGKILL");
  expect(gateway.results(command.commandId)).toEqual([]);
  agent.start();
  await gateway.session(2);
  writeFileSync(release(scenario), "");
  return gateway.result(command.commandId, 60_000);
}

/** Lets a program run until its agent was killed and the next one is there. */
function stretch(scenario: AgentScenario, program: Program, word?: string) {
  rmSync(release(scenario), { force: true });
  const match = { program, ...(word === undefined ? {} : { command: word }) };
  return { match, effect: { kind: "hold", until: release(scenario) } as const, times: 1 };
}

const release = ({ agent }: AgentScenario): string => join(agent.host.root, "released");

const backup = (pod: Pod, mode = "stop"): Command =>
  pod.command({ $case: "backup", value: { backupId: randomUUID(), storage: "local", mode } });

function dumps({ agent }: AgentScenario): string[] {
  const folder = join(agent.host.paths.storageRoot, "local/dump");
  return existsSync(folder)
    ? readdirSync(folder).filter((name) => /\.tar/u.test(name) && !name.endsWith(".notes"))
    : [];
}

const stateOf = async (host: SimulatedHost, { vmid }: Pod) =>
  (await host.containers()).find((view) => view.vmid === vmid);

describe("an agent that is killed with SIGKILL", () => {
  test("while vzdump runs waits for it and answers with its one archive", async () => {
    const scenario = await connectedScenario();
    const pod = podCommands(scenario.agent.host);
    await prepare(scenario, [pod.create(), pod.start()]);
    scenario.agent.host.setFaults([stretch(scenario, "vzdump")]);
    const result = await killDuring(scenario, backup(pod), "vzdump", String(pod.vmid));
    expect(result).toMatchObject({
      outcome: succeeded,
      backup: { found: true },
      observation: { power: Power.POWER_RUNNING },
    });
    expect([dumps(scenario).length, (await calls(scenario, "vzdump", String(pod.vmid))).length]).toEqual([1, 1]);
  });

  test("together with vzdump says so, and leaves no half and a container that runs", async () => {
    const scenario = await connectedScenario();
    const pod = podCommands(scenario.agent.host);
    await prepare(scenario, [pod.create(), pod.start()]);
    const effect = { kind: "die-at", point: "half-extracted", signal: "KILL" } as const;
    scenario.agent.host.setFaults([stretch(scenario, "vzdump"), { match: { program: "vzdump" }, effect, times: 1 }]);
    const result = await killDuring(scenario, backup(pod), "vzdump", String(pod.vmid));
    expect(result).toMatchObject({ outcome: interrupted, observation: { power: Power.POWER_RUNNING, lock: "" } });
    expect([dumps(scenario), (await calls(scenario, "vzdump", String(pod.vmid))).length]).toEqual([[], 1]);
  });

  test("while it shuts a container down for an archive makes that, and leaves it stopped", async () => {
    const scenario = await connectedScenario();
    const pod = podCommands(scenario.agent.host);
    await prepare(scenario, [pod.create(), pod.start()]);
    scenario.agent.host.setFaults([stretch(scenario, "pct", "shutdown")]);
    const result = await killDuring(scenario, backup(pod, "shut-down"), "pct", "shutdown");
    expect(result).toMatchObject({
      outcome: succeeded,
      backup: { found: true },
      observation: { power: Power.POWER_STOPPED },
    });
    expect(dumps(scenario)).toHaveLength(1);
  });

  test("while an archive is read or removed does it again", async () => {
    const scenario = await connectedScenario();
    const { agent, gateway } = scenario;
    const pod = podCommands(agent.host);
    const made = backup(pod, "snapshot");
    await prepare(scenario, [pod.create(), made]);
    const { volumeId = "" } = gateway.results(made.commandId)[0]?.backup ?? {};
    agent.host.setFaults([stretch(scenario, "zstd")]);
    const verify = pod.command({ $case: "verifyBackup", value: { volumeId, atOnce: false } });
    expect(await killDuring(scenario, verify, "zstd", "--test")).toMatchObject({
      outcome: succeeded,
      backup: { found: true, readable: true },
    });
    agent.host.setFaults([stretch(scenario, "pvesm", "free")]);
    const remove = pod.command({ $case: "deleteBackup", value: { volumeId } });
    expect(await killDuring(scenario, remove, "pvesm", "free")).toMatchObject({
      outcome: succeeded,
      backup: { found: false },
    });
    expect(dumps(scenario)).toEqual([]);
  });

  test.each([["alone", undefined] as const, ["with its program", "half-extracted"] as const])(
    "while a container is restored, %s, ends in one restored container",
    async (_, point) => {
      const scenario = await connectedScenario();
      const { agent, gateway } = scenario;
      const pod = podCommands(agent.host);
      const made = backup(pod, "snapshot");
      await prepare(scenario, [pod.create(), made]);
      const { volumeId = "" } = gateway.results(made.commandId)[0]?.backup ?? {};
      const effect = { kind: "die-at", point: point ?? "never", signal: "KILL" } as const;
      agent.host.setFaults([stretch(scenario, "pct", "restore"), { match: { command: "restore" }, effect, times: 1 }]);
      const value = { volumeId, spec: pod.spec, overwrite: true, takeOverFrom: "" };
      const result = await killDuring(scenario, pod.command({ $case: "restore", value }), "pct", "restore");
      expect(result).toMatchObject({ outcome: succeeded, backup: { restored: true }, observation: { lock: "" } });
      expect((await calls(scenario, "pct", "restore")).length).toBe(point === undefined ? 1 : 2);
      await prepare(scenario, [pod.start()]);
    },
  );

  test("while a container is adopted, marks it once", async () => {
    const scenario = await connectedScenario();
    const { agent, gateway } = scenario;
    expect(await runTool(agent.host.paths.pct, "clone", "9000", "300")).toMatchObject({ exitCode: 0 });
    const pod = podCommands(agent.host, 300);
    const look = pod.inspect();
    await prepare(scenario, [look]);
    const { configSha256 = "" } = gateway.results(look.commandId)[0]?.observation ?? {};
    agent.host.setFaults([stretch(scenario, "pct", "set")]);
    const adopt = pod.command({ $case: "adopt", value: { expectedConfigSha256: configSha256, replacesPodId: "" } });
    const result = await killDuring(scenario, adopt, "pct", "set");
    expect(result).toMatchObject({ outcome: succeeded, observation: { podId: pod.podId } });
    expect(await calls(scenario, "pct", "set")).toHaveLength(1);
  });

  test.each([
    ["while it runs", undefined, succeeded],
    ["together with it before the move", "before-move", interrupted],
    ["together with it after the move", "after-move", succeeded],
  ] as const)("in a migration, %s, knows where the container is", async (_, point, outcome) => {
    const folder = mkdtempSync(join(tmpdir(), "cloudpods-cluster-"));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
    const storages = [
      { id: "local-lvm", type: "lvmthin", totalGb: 100 } as const,
      { id: "shared", type: "dir", totalGb: 100, shared: true } as const,
    ];
    const member = { clusterRoot: join(folder, "cluster"), storages, speed: 0.02 };
    const scenario = await connectedScenario({ host: member });
    const other = await createSimulatedHost({ root: join(folder, "two"), nodeName: "pve2", ...member });
    const { agent } = scenario;
    const pod = podCommands(agent.host);
    const source = { $case: "clone", value: { templateVmid: agent.host.templateVmid, full: true } } as const;
    const spec = { ...pod.spec, storage: "shared", source };
    await prepare(scenario, [pod.command({ $case: "ensureContainer", value: { spec } }), pod.start()]);
    const effect = { kind: "die-at", point: point ?? "never", signal: "KILL" } as const;
    agent.host.setFaults([stretch(scenario, "pct", "migrate"), { match: { command: "migrate" }, effect, times: 1 }]);
    const value = { target: "pve2", targetStorage: "", shutdownTimeoutSeconds: 5 };
    const result = await killDuring(scenario, pod.command({ $case: "migrate", value }), "pct", "migrate");
    const isHere = outcome === interrupted;
    expect(result).toMatchObject({ outcome, move: { pveName: isHere ? "pve1" : "pve2" } });
    expect(await calls(scenario, "pct", "migrate")).toHaveLength(1);
    expect(await stateOf(isHere ? other : agent.host, pod)).toBeUndefined();
    // Only what was stopped for a move that did not come about is started here; the rest is the target's.
    if (isHere) expect(await stateOf(agent.host, pod)).toMatchObject({ running: true });
    if (point === undefined) expect(await stateOf(other, pod)).toMatchObject({ running: true });
  });
});
