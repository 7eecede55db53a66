import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { createSimulatedHost, type SimulatedHost } from "../../test/simulated-host/host.ts";

const agentProgram = join(import.meta.dirname, "../../node-agent/src/main.ts");

/** A simulated Proxmox host with its agent process. */
export interface DemoHost {
  readonly name: string;
  readonly stateDirectory: string;
  readonly simulated: SimulatedHost;
  isEnrolled(): boolean;
  /** Enrols the host; once in its life. */
  join(serverUrl: string, joinToken: string): Promise<void>;
  startAgent(): Promise<void>;
  /** kill -9, as a crash would. */
  killAgent(): Promise<void>;
  /** Ends agent, kernel and what the agent left running. */
  stop(): Promise<void>;
}

/** Makes the host's tree (or opens the one that is there) and starts its kernel. */
export async function createDemoHost(directory: string, name: string): Promise<DemoHost> {
  const root = join(directory, name, "root");
  const stateDirectory = join(directory, name, "agent");
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
  const simulated = await createSimulatedHost({
    root,
    nodeName: name,
    cores: 8,
    memoryMb: 16_384,
    storages: [
      { id: "local", type: "dir", totalGb: 200, content: "vztmpl,backup" },
      { id: "local-lvm", type: "lvmthin", totalGb: 500, content: "rootdir" },
    ],
  });
  const kernel = await simulated.startKernel();
  const environment = agentEnvironment(simulated, stateDirectory);
  let agent: ChildProcess | undefined;

  const run = async (argv: readonly string[]): Promise<ChildProcess> => {
    const log = await open(join(directory, name, "agent.log"), "a");
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", agentProgram, ...argv], {
      env: environment,
      stdio: ["ignore", log.fd, log.fd],
    });
    child.once("close", () => void log.close());
    return child;
  };

  return {
    name,
    stateDirectory,
    simulated,
    isEnrolled: () => existsSync(join(stateDirectory, "identity.json")),
    async join(serverUrl, joinToken) {
      const child = await run(["join", "--server", serverUrl, "--token", joinToken]);
      const code = await ended(child);
      if (code !== 0)
        throw new Error(`the agent of ${name} could not join: ${await lastLines(join(directory, name, "agent.log"))}`);
    },
    async startAgent() {
      agent = await run(["run"]);
    },
    async killAgent() {
      const killed = agent;
      killed?.kill("SIGKILL");
      if (killed !== undefined) await ended(killed);
    },
    async stop() {
      if (agent !== undefined && agent.exitCode === null && agent.signalCode === null) {
        agent.kill("SIGTERM");
        const timer = setTimeout(() => agent?.kill("SIGKILL"), 10_000);
        await ended(agent);
        clearTimeout(timer);
      }
      await endOperations(root);
      await kernel.stop();
    },
  };
}

/** The very variables that a real host would set, were its paths not the defaults. */
function agentEnvironment(host: SimulatedHost, stateDirectory: string): NodeJS.ProcessEnv {
  const { paths } = host;
  return {
    PATH: process.env["PATH"],
    CLOUDPODS_AGENT_STATE_DIR: stateDirectory,
    CLOUDPODS_AGENT_PCT_PATH: paths.pct,
    CLOUDPODS_AGENT_PVESM_PATH: paths.pvesm,
    CLOUDPODS_AGENT_VZDUMP_PATH: paths.vzdump,
    CLOUDPODS_AGENT_PVEVERSION_PATH: paths.pveversion,
    CLOUDPODS_AGENT_UMOUNT_PATH: paths.umount,
    CLOUDPODS_AGENT_PVE_ROOT: paths.pveRoot,
    CLOUDPODS_AGENT_CGROUP_ROOT: paths.cgroupRoot,
    CLOUDPODS_AGENT_PROC_ROOT: paths.procRoot,
    CLOUDPODS_AGENT_NET_CLASS_ROOT: paths.netClassRoot,
    CLOUDPODS_AGENT_TASK_LOG_ROOT: join(paths.taskLogRoot, "tasks"),
    CLOUDPODS_AGENT_LOCK_ROOT: join(paths.lockRoot, "lxc"),
    CLOUDPODS_AGENT_LXC_ROOT: paths.lxcRoot,
    CLOUDPODS_AGENT_RUN_ROOT: join(paths.runRoot, "pve"),
  };
}

async function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  return await new Promise((resolve) => child.once("exit", (code) => resolve(code)));
}

async function lastLines(path: string): Promise<string> {
  return (await readFile(path, "utf8")).trim().split("\n").slice(-3).join(" ");
}

/**
 * The host's programs outlive an agent on purpose. At the end of the demo they are given time to
 * finish and then told to stop.
 */
async function endOperations(root: string): Promise<void> {
  for (const [waitMs, signal] of [
    [8_000, undefined],
    [5_000, "SIGTERM"],
    [2_000, "SIGKILL"],
  ] as const) {
    if (signal !== undefined) for (const pid of await processesOf(root)) tryKill(pid, signal);
    for (const deadline = Date.now() + waitMs; Date.now() < deadline;) {
      if ((await processesOf(root)).length === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** Programs of this host that run now, its kernel apart. */
async function processesOf(root: string): Promise<number[]> {
  const found: number[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^[0-9]+$/.test(name))) {
    const line = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    const mentions = line.some((argument) => argument === root || argument.startsWith(`${root}/`));
    if (mentions && !line.some((argument) => argument.endsWith("kernel.ts")) && Number(pid) !== process.pid)
      found.push(Number(pid));
  }
  return found;
}

function tryKill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it ended by itself
  }
}
