import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SigningAuthority } from "../../control-plane/src/nodes/certificate-authority.ts";
import { makePrivateKey } from "../../node-agent/src/enrolment/certificate-request.ts";
import { saveIdentity } from "../../node-agent/src/enrolment/identity-files.ts";
import { type SimulatedHost, type SimulatedHostOptions, createSimulatedHost } from "../simulated-host/host.ts";
import { builtPrograms } from "./built-programs.ts";
import { certifyKey } from "./test-authority.ts";
import { until } from "./until.ts";

/** A simulated host with a real agent process on it. */
export interface AgentOnHost {
  readonly host: SimulatedHost;
  readonly stateDir: string;
  /** Starts `cloudpods-agent run`. */
  start(): void;
  /** Ends it as a crash would and waits for its end. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Runs a sub-command to its end. */
  run(...argv: string[]): Promise<{ readonly exitCode: number; readonly stdout: string; readonly stderr: string }>;
  /** Log lines of all runs so far. */
  log(): readonly { readonly [name: string]: unknown }[];
  /** Waits for a log line with the given fields. */
  logged(fields: Readonly<Record<string, unknown>>, deadlineMs?: number): Promise<unknown>;
  pid(): number;
  dispose(): Promise<void>;
}

export interface AgentOnHostOptions {
  readonly speed?: number;
  /** What else the host shall be. */
  readonly host?: Partial<SimulatedHostOptions>;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Environment of an agent on a simulated host. */
export function agentEnvironment({ paths }: SimulatedHost, stateDir: string): Record<string, string> {
  const entries = {
    STATE_DIR: stateDir,
    PCT_PATH: paths.pct,
    PVESM_PATH: paths.pvesm,
    VZDUMP_PATH: paths.vzdump,
    PVEVERSION_PATH: paths.pveversion,
    UMOUNT_PATH: paths.umount,
    ZSTD_PATH: paths.zstd,
    LXC_STOP_PATH: paths.lxcStop,
    PVE_ROOT: paths.pveRoot,
    CGROUP_ROOT: paths.cgroupRoot,
    PROC_ROOT: paths.procRoot,
    NET_CLASS_ROOT: paths.netClassRoot,
    TASK_LOG_ROOT: join(paths.taskLogRoot, "tasks"),
    LXC_ROOT: paths.lxcRoot,
    RUN_ROOT: join(paths.runRoot, "pve"),
  };
  const environment = Object.fromEntries(
    Object.entries(entries).map(([name, value]) => [`CLOUDPODS_AGENT_${name}`, value]),
  );
  // Each has a state directory of its own, which is where it would keep what the compiler made of it.
  const compileCache = process.env["NODE_COMPILE_CACHE"];
  return compileCache === undefined ? environment : { ...environment, NODE_COMPILE_CACHE: compileCache };
}

/** Makes a host without an identity; `enrolByHand` or `run("join", …)` gives it one. */
export async function createAgentOnHost(options: AgentOnHostOptions = {}): Promise<AgentOnHost> {
  const root = mkdtempSync(join(tmpdir(), "cloudpods-agent-"));
  const stateDir = join(root, "agent");
  const place = { root: join(root, "host"), nodeName: "pve1", speed: options.speed ?? 0.02 };
  const host = await createSimulatedHost({ ...place, ...options.host });
  const environment = { PATH: process.env["PATH"] ?? "", ...agentEnvironment(host, stateDir), ...options.environment };
  const lines: Record<string, unknown>[] = [];
  let child: ChildProcess | undefined;

  const collect = (process: ChildProcess): void => {
    let rest = "";
    process.stdout?.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts) if (line.startsWith("{")) lines.push(JSON.parse(line));
    });
    process.stderr?.setEncoding("utf8").on("data", (text: string) => lines.push({ stderr: text }));
  };
  const kill = async (signal: NodeJS.Signals = "SIGKILL"): Promise<void> => {
    const ending = child;
    child = undefined;
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
    const ended = once(ending, "exit");
    ending.kill(signal);
    await ended;
  };
  return {
    host,
    stateDir,
    start() {
      child = spawn(builtPrograms().agent, ["run"], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
      collect(child);
    },
    kill,
    async run(...argv) {
      const process_ = spawn(builtPrograms().agent, argv, {
        env: environment,
        stdio: ["ignore", "pipe", "pipe"],
      });
      let [stdout, stderr] = ["", ""];
      process_.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
      process_.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
      const [code] = await once(process_, "close");
      return { exitCode: Number(code ?? -1), stdout, stderr };
    },
    log: () => lines,
    logged: (fields, deadlineMs) =>
      until(
        `log line ${JSON.stringify(fields)}`,
        () => lines.find((line) => Object.entries(fields).every(([name, value]) => line[name] === value)),
        deadlineMs,
      ),
    pid: () => child?.pid ?? -1,
    async dispose() {
      await kill();
      killPrograms(root);
      rmSync(root, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    },
  };
}

/** Ends the programs of a host, which outlive its agent: they are known by its folder in their arguments. */
function killPrograms(root: string): void {
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    try {
      if (readFileSync(`/proc/${name}/cmdline`, "utf8").includes(root)) process.kill(Number(name), "SIGKILL");
    } catch {
      // It ended meanwhile.
    }
  }
}

/** Gives a host an identity without a control plane. */
export async function enrolByHand(
  stateDir: string,
  authority: SigningAuthority,
  identity: {
    readonly nodeId: string;
    readonly gatewayAddress: string;
    readonly serverUrl?: string;
    /** Moment of issue of the certificate, which is valid for 30 days. */
    readonly issuedAt?: Date;
    /** Authority that the agent shall trust; the issuer by default. */
    readonly trusts?: SigningAuthority;
  },
): Promise<void> {
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  const keyPem = makePrivateKey();
  saveIdentity(stateDir, {
    nodeId: identity.nodeId,
    serverUrl: identity.serverUrl ?? "http://127.0.0.1:1",
    gatewayAddress: identity.gatewayAddress,
    // Nobody listens: these tests are about the session.
    brokerUrl: "mqtts://127.0.0.1:1",
    keyPem,
    certificatePem: await certifyKey(authority, identity.nodeId, keyPem, identity.issuedAt),
    caPem: (identity.trusts ?? authority).pem,
  });
}
