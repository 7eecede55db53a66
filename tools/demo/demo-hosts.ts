import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, open, readFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { createSimulatedHost, type SimulatedHost, type SimulatedHostOptions } from "../../test/simulated-host/host.ts";
import { simulatedPrograms } from "../../test/simulated-host/programs.ts";
import { agentEnvironment } from "../../test/support/agent-process.ts";
import { exitOf, processesAbout, signal } from "../../test/support/processes.ts";

const agentProgram = join(import.meta.dirname, "../../node-agent/bin/cloudpods-agent");

/** A simulated Proxmox host with its agent process. */
export interface DemoHost {
  readonly name: string;
  readonly stateDirectory: string;
  /** What the agent says, of all its lives. */
  readonly logPath: string;
  readonly simulated: SimulatedHost;
  isEnrolled(): boolean;
  /** Enrols the host; once in its life. */
  join(serverUrl: string, joinToken: string): Promise<void>;
  startAgent(): Promise<void>;
  /** kill -9, as a crash would. */
  killAgent(): Promise<void>;
  /** Everything of the host dies at once: agent, kernel, programs and guests. */
  cutPower(): Promise<void>;
  /** The power is back: kernel, guests that start with their host, agent. */
  boot(): Promise<void>;
  /** Ends agent, kernel and what the agent left running. */
  stop(): Promise<void>;
}

/** What each host has by itself. */
export const ownStorages = [
  { id: "local", type: "dir", totalGb: 200, content: "vztmpl,backup" },
  { id: "local-lvm", type: "lvmthin", totalGb: 500, content: "rootdir" },
] as const;

/**
 * Makes the host's tree (or opens the one that is there) and starts its kernel.
 * @param speed factor on every duration of a real host
 * @param changes what is different about this host
 * @param program the agent's
 */
export async function createDemoHost(
  directory: string,
  name: string,
  speed: number,
  changes: Partial<SimulatedHostOptions> = {},
  program = agentProgram,
): Promise<DemoHost> {
  const root = join(directory, name, "root");
  const stateDirectory = join(directory, name, "agent");
  const logPath = join(directory, name, "agent.log");
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
  const simulated = await createSimulatedHost({
    root,
    nodeName: name,
    cores: 8,
    memoryMb: 16_384,
    speed,
    storages: [...ownStorages],
    ...changes,
  });
  let kernel = await simulated.startKernel();
  const environment = {
    // The node that runs this, whatever else the machine has.
    PATH: [dirname(process.execPath), process.env["PATH"]].join(delimiter),
    ...agentEnvironment(simulated, stateDirectory),
    NODE_OPTIONS: `--require ${JSON.stringify((await simulatedPrograms()).guestDisks)}`,
  };
  let agent: ChildProcess | undefined;

  const run = async (argv: readonly string[]): Promise<ChildProcess> => {
    const log = await open(logPath, "a");
    const child = spawn(program, argv, { env: environment, stdio: ["ignore", log.fd, log.fd] });
    await log.close();
    return child;
  };

  const killAgent = async (): Promise<void> => {
    agent?.kill("SIGKILL");
    if (agent !== undefined) await exitOf(agent);
  };
  const startAgent = async (): Promise<void> => {
    agent = await run(["run"]);
  };

  return {
    name,
    stateDirectory,
    logPath,
    simulated,
    isEnrolled: () => existsSync(join(stateDirectory, "identity.json")),
    async join(serverUrl, joinToken) {
      const child = await run(["join", "--server", serverUrl, "--token", joinToken]);
      if ((await exitOf(child)) !== 0)
        throw new Error(`the agent of ${name} could not join: ${await lastLines(logPath)}`);
    },
    startAgent,
    killAgent,
    async cutPower() {
      await Promise.all([killAgent(), kernel.stop(), simulated.cutPower()]);
      // Programs that the agent had begun in that moment.
      for (const { pid } of await programsOf(root)) signal(pid, "SIGKILL");
    },
    async boot() {
      await simulated.boot();
      kernel = await simulated.startKernel();
      await startAgent();
    },
    async stop() {
      if (agent !== undefined && agent.exitCode === null && agent.signalCode === null) {
        agent.kill("SIGTERM");
        const timer = setTimeout(() => agent?.kill("SIGKILL"), 10_000);
        await exitOf(agent);
        clearTimeout(timer);
      }
      await endOperations(root);
      await kernel.stop();
    },
  };
}

async function lastLines(path: string): Promise<string> {
  return (await readFile(path, "utf8")).trim().split("\n").slice(-3).join(" ");
}

/**
 * The host's programs outlive an agent on purpose. At the end of the demo they are given time to
 * finish and then told to stop.
 */
async function endOperations(root: string): Promise<void> {
  for (const [waitMs, name] of [
    [8_000, undefined],
    [5_000, "SIGTERM"],
    [2_000, "SIGKILL"],
  ] as const) {
    if (name !== undefined) for (const { pid } of await programsOf(root)) signal(pid, name);
    for (const deadline = Date.now() + waitMs; Date.now() < deadline;) {
      if ((await programsOf(root)).length === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** Programs of this host that run now, its kernel apart. */
async function programsOf(root: string) {
  return (await processesAbout(root)).filter(
    ({ commandLine }) => !commandLine.some((word) => word.endsWith("/kernel.cjs")),
  );
}
