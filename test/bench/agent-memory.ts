import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { Registry } from "prom-client";
import { startBroker } from "../../control-plane/src/broker/start-broker.ts";
import { enrolByHand } from "../support/agent-process.ts";
import { brokerTls } from "../support/broker-identities.ts";
import { makeTestAuthority } from "../support/test-authority.ts";
import { startTestGateway } from "../support/test-gateway.ts";
import { until } from "../support/until.ts";

/** The kernel's and Proxmox's trees of a host. */
export interface HostTree {
  readonly pveRoot: string;
  readonly cgroupRoot: string;
  readonly procRoot: string;
  readonly netClassRoot: string;
}

/** Resident memory in MB (10^6 bytes). */
export interface AgentMemory {
  readonly rssMb: number;
  /** The part that is the agent's own; the rest are pages of the Node program, which the kernel can drop. */
  readonly privateMb: number;
  /** Of a Node process with the same flags that does nothing. */
  readonly bareRssMb: number;
}

const source = fileURLToPath(new URL("../../node-agent/bin/cloudpods-agent", import.meta.url));
/** As many ticks of a second as an agent makes in an hour. */
const TICKS = 60;

/**
 * Memory of a real agent with a session, after it has sampled the containers of a tree for as many ticks as
 * an hour has. It is started twice: the first start compiles, as after an upgrade, and the second is measured.
 *
 * @param program the agent's launcher; the source's by default
 */
export async function measureAgentMemory(tree: HostTree, root: string, program = source): Promise<AgentMemory> {
  completeTree(tree);
  const stateDir = join(root, "agent");
  const nodeId = randomUUID();
  const authority = await makeTestAuthority();
  const gateway = await startTestGateway({ authority, nodeId });
  const broker = await startBroker({
    tls: await brokerTls(authority),
    host: "127.0.0.1",
    port: 0,
    authorizeNode: () => Promise.resolve(true),
    log: pino({ level: "silent" }),
    registry: new Registry(),
  });
  const brokerUrl = `mqtts://127.0.0.1:${broker.port}`;
  const intervals = { sampleIntervalMs: 1_000, inventoryIntervalMs: 10_000, heartbeatIntervalMs: 1_000 };
  gateway.setWelcome({ ...intervals, brokerUrl });
  await enrolByHand(stateDir, authority, { nodeId, gatewayAddress: gateway.address });
  const [, flags = ""] = /^#!\S+ -S (?:\S+=\S+ )*node (.*)$/mu.exec(readFileSync(program, "utf8")) ?? [];
  const bare = spawn(process.execPath, [...flags.split(" "), "-e", "setInterval(() => {}, 1_000)"]);
  let agent: ChildProcess | undefined;
  try {
    for (const session of [1, 2]) {
      agent = spawn(program, ["run"], { env: environmentOf(tree, root, stateDir), stdio: "ignore" });
      await until(`session ${session}`, () => gateway.hellos().length >= session, 60_000);
      // The first one writes its cache of compiled code when it ends.
      if (session === 1) await end(agent);
    }
    await pause(TICKS * 1_000);
    return {
      rssMb: memoryMbOf(agent?.pid, "VmRSS"),
      privateMb: memoryMbOf(agent?.pid, "RssAnon"),
      bareRssMb: memoryMbOf(bare.pid, "VmRSS"),
    };
  } finally {
    bare.kill("SIGKILL");
    if (agent !== undefined) await end(agent);
    gateway.stop();
    await broker.close();
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
}

/** What the agent asks for beyond the files that a tick reads. */
function completeTree({ pveRoot, procRoot }: HostTree): void {
  const node = join(pveRoot, "nodes/pve1");
  mkdirSync(node, { recursive: true });
  renameSync(join(pveRoot, "lxc"), join(node, "lxc"));
  symlinkSync("nodes/pve1", join(pveRoot, "local"));
  symlinkSync("nodes/pve1/lxc", join(pveRoot, "lxc"));
  writeFileSync(join(pveRoot, ".members"), '{"nodename":"pve1","version":1}');
  writeFileSync(join(pveRoot, ".vmlist"), '{"version":1,"ids":{}}');
  writeFileSync(join(pveRoot, "storage.cfg"), "lvmthin: local-lvm\n\tvgname pve\n\tthinpool data\n\tcontent rootdir\n");
  writeFileSync(join(procRoot, "loadavg"), "0.10 0.10 0.10 1/100 1000\n");
  writeFileSync(join(procRoot, "meminfo"), "MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n");
  writeFileSync(join(procRoot, "net/unix"), "Num RefCount Protocol Flags Type St Inode Path\n");
  mkdirSync(join(procRoot, "sys/kernel/random"), { recursive: true });
  writeFileSync(join(procRoot, "sys/kernel/random/boot_id"), "2b8c6f9e-1111-4000-8000-000000000001\n");
}

function environmentOf(tree: HostTree, root: string, stateDir: string): Record<string, string> {
  const machineId = join(root, "machine-id");
  writeFileSync(machineId, "0123456789abcdef0123456789abcdef\n");
  // No program of Proxmox is there: the agent goes on without what they would tell.
  const paths = { PCT: "pct", PVESM: "pvesm", VZDUMP: "vzdump", PVEVERSION: "pveversion" };
  const programs = Object.entries(paths).map(([name, file]) => [`${name}_PATH`, join(root, "missing", file)] as const);
  const settings = {
    ...Object.fromEntries(programs),
    STATE_DIR: stateDir,
    MACHINE_ID_PATH: machineId,
    PVE_ROOT: tree.pveRoot,
    CGROUP_ROOT: tree.cgroupRoot,
    PROC_ROOT: tree.procRoot,
    NET_CLASS_ROOT: tree.netClassRoot,
  };
  const named = Object.entries(settings).map(([name, value]) => [`CLOUDPODS_AGENT_${name}`, value]);
  return { PATH: process.env["PATH"] ?? "", ...Object.fromEntries(named) };
}

function memoryMbOf(pid: number | undefined, name: "VmRSS" | "RssAnon"): number {
  const status = readFileSync(`/proc/${String(pid)}/status`, "utf8");
  const [, kib = "0"] = new RegExp(`^${name}:\\s+(\\d+) kB$`, "mu").exec(status) ?? [];
  return Math.round((Number(kib) * 1_024) / 100_000) / 10;
}
