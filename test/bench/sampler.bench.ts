/**
 * Processor time of one tick over a thousand containers: reading, computing, encoding and storing,
 * with all threads counted. Held against a bare loop that only reads the same files. Then the resident
 * memory of a real agent with 200 containers, beside that of a Node process that does nothing.
 *
 *   node test/bench/sampler.bench.ts [containers]
 */
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createDisciplinedClock } from "../../node-agent/src/clock/disciplined-clock.ts";
import { formatMarker } from "../../node-agent/src/containers/marker.ts";
import { createFilesystemProbe } from "../../node-agent/src/sampling/filesystem-probe.ts";
import { createSampler } from "../../node-agent/src/sampling/sampler.ts";
import { openSpool } from "../../node-agent/src/spool/spool.ts";
import { measureAgentMemory } from "./agent-memory.ts";

const ROUNDS = 30;
const WARM_UP_ROUNDS = 10;
const FIRST_VMID = 100_000;
const START_TICKS = 100_000;
const MEMORY_CONTAINERS = 200;

interface Tree {
  readonly pveRoot: string;
  readonly cgroupRoot: string;
  readonly procRoot: string;
  readonly netClassRoot: string;
  /** Every file that a tick reads. */
  readonly files: string[];
  /** Every file that a tick only looks at. */
  readonly configs: string[];
}

/** Lays out what the kernel and Proxmox show of `count` running containers. */
function layOut(root: string, count: number): Tree {
  const tree: Tree = {
    pveRoot: join(root, "pve"),
    cgroupRoot: join(root, "cgroup"),
    procRoot: join(root, "proc"),
    netClassRoot: join(root, "net"),
    files: [],
    configs: [],
  };
  const write = (folder: string, name: string, text: string): string => {
    mkdirSync(folder, { recursive: true });
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const cpuLines = cpus().map((_, index) => `cpu${index} 1 2 3 4 5 6 7 8 9 10\n`);
  write(tree.procRoot, "stat", `cpu  1 2 3 4 5 6 7 8 9 10\n${cpuLines.join("")}`);
  tree.files.push(write(tree.procRoot, "uptime", "864000.25 1700000.00\n"));
  const netDev: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const vmid = FIRST_VMID + index;
    const pid = 10_000 + index;
    const veth = `veth${vmid}i0`;
    const cgroup = join(tree.cgroupRoot, "lxc", String(vmid));
    const proc = join(tree.procRoot, String(pid));
    write(join(cgroup, "ns/init.scope"), "cgroup.procs", `${pid}\n`);
    write(proc, "status", `Name:\tsystemd\nNSpid:\t${pid}\t1\n`);
    mkdirSync(join(proc, "root"));
    tree.files.push(
      write(
        proc,
        "stat",
        `${pid} (systemd) S 1 1 1 0 -1 4194560 ${"0 ".repeat(8)}20 0 1 0 ${START_TICKS} 22000000 3000 18446744073709551615\n`,
      ),
      write(cgroup, "cpu.stat", cpuStat(index)),
      write(cgroup, "memory.current", `${200_000_000 + index}\n`),
      write(cgroup, "memory.stat", memoryStat(index)),
      write(cgroup, "io.stat", ioStat(index)),
      write(join(tree.netClassRoot, veth), "ifindex", `${index + 5}\n`),
    );
    netDev.push(`${veth}: ${index * 1000} 10 0 0 0 0 0 0 ${index * 2000} 20 0 0 0 0 0 0\n`);
    const config = write(join(tree.pveRoot, "lxc"), `${vmid}.conf`, configOf(index));
    utimesSync(config, 1_700_000_000, 1_700_000_000);
    tree.configs.push(config);
  }
  tree.files.push(write(join(tree.procRoot, "net"), "dev", `Inter-|\n face |\n${netDev.join("")}`));
  return tree;
}

function cpuStat(index: number): string {
  const usage = 9_000_000_000_000 + index;
  return `usage_usec ${usage}\nuser_usec ${usage}\nsystem_usec 0\nnice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n`;
}

/** As long as the kernel's own: some forty keys. */
function memoryStat(index: number): string {
  const others = Array.from({ length: 38 }, (_, row) => `workingset_nodes_${row} ${row * 4096}\n`);
  return `anon ${150_000_000 + index}\nfile ${40_000_000 + index}\n${others.join("")}`;
}

function ioStat(index: number): string {
  return ["254:0", "252:1", "252:2", "7:0"]
    .map((device) => `${device} rbytes=${index * 4096} wbytes=${index * 8192} rios=1 wios=2 dbytes=0 dios=0\n`)
    .join("");
}

function configOf(index: number): string {
  const podId = `2b8c6f9e-0000-7000-8000-${String(index).padStart(12, "0")}`;
  const marker = formatMarker({ podId, fleetEpoch: 1n, generation: 1n, stage: "ready", keys: "none" });
  return `#${marker}\narch: amd64\ncores: 2\nhostname: pod-${index}\nmemory: 512\nnet0: name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:00,ip=dhcp,type=veth\nostype: debian\nrootfs: local-lvm:vm-${FIRST_VMID + index}-disk-0,size=8G\nswap: 512\ntags: cloudpods\nunprivileged: 1\n`;
}

function readBare(tree: Tree): void {
  readdirSync(join(tree.pveRoot, "lxc"));
  readdirSync(join(tree.cgroupRoot, "lxc"));
  for (const path of tree.configs) statSync(path);
  for (const path of tree.files) readFileSync(path, "utf8");
}

/** Middle value of the processor ms that each round of `work` took, after warming up. */
async function cpuMs(work: () => void | Promise<void>): Promise<number> {
  const rounds: number[] = [];
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round += 1) {
    const before = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(before);
    if (round >= 0) rounds.push((user + system) / 1000);
  }
  return rounds.toSorted((a, b) => a - b)[Math.floor(ROUNDS / 2)] ?? Number.NaN;
}

const containers = Number(process.argv[2] ?? 1000);
const root = mkdtempSync(join(tmpdir(), "sampler-bench-"));
try {
  const tree = layOut(root, containers);
  const bare = await cpuMs(() => readBare(tree));
  const log = { warn: console.warn, error: console.error };
  // Each tick is to be a real one, so time passes between them.
  let nowMs = 864_000_250;
  const clock = createDisciplinedClock({ bootId: "bench", monotonicMs: () => nowMs });
  clock.recordExchange({ sentMonotonicMs: nowMs, receivedMonotonicMs: nowMs, serverTimeMs: Date.now() });
  const spool = openSpool({ path: join(root, "spool.db"), clock, limitBytes: 1e9, log });
  const sampler = createSampler({
    paths: tree,
    clock,
    spool,
    probe: createFilesystemProbe(),
    intervalMs: 60_000,
    log,
  });
  const value = await cpuMs(() => {
    nowMs += 60_000;
    return sampler.tick();
  });
  const batches = spool.status().depth;
  spool.close();
  const memoryRoot = join(root, "memory");
  const memory = await measureAgentMemory(layOut(memoryRoot, MEMORY_CONTAINERS), memoryRoot, process.argv[3]);
  console.log(
    JSON.stringify({
      bench: "sampler",
      value: Math.round(value * 10) / 10,
      unit: "ms cpu",
      bare: Math.round(bare * 10) / 10,
      ratio: Math.round((value / bare) * 100) / 100,
      containers: sampler.runningContainers(),
      filesRead: tree.files.length,
      batches,
      ...memory,
      memoryContainers: MEMORY_CONTAINERS,
    }),
  );
} finally {
  rmSync(root, { recursive: true });
}
