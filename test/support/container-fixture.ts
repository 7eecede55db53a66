import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { pino } from "pino";
import { createSimulatedHost } from "../simulated-host/host.ts";
import type { SimulatedHost, SimulatedHostOptions } from "../simulated-host/host.ts";
import { parseMarker } from "../../node-agent/src/containers/marker.ts";
import type { HostPaths } from "../../node-agent/src/pct/host-paths.ts";
import { parseContainerConfig } from "../../node-agent/src/pct/parse-pct-config.ts";
import type { ContainerConfig } from "../../node-agent/src/pct/parse-pct-config.ts";
import type { ContainerWish } from "../../node-agent/src/containers/container-wish.ts";
import type { Containers, ConvergeOptions } from "../../node-agent/src/containers/containers.ts";
import { createContainers } from "../../node-agent/src/containers/create-containers.ts";
import type { ContainersOptions } from "../../node-agent/src/containers/create-containers.ts";

/** A simulated host with the agent's containers on it, for tests. */
export interface Fixture {
  readonly host: SimulatedHost;
  readonly paths: HostPaths;
  readonly operationsDir: string;
  readonly containers: Containers;
  /** Another agent process on the same host: its own memory, the same directories. */
  readonly restart: (options?: Partial<ContainersOptions>) => Containers;
  readonly dispose: () => Promise<void>;
}

/** Short waits: the simulated host does everything ten to a hundred times as fast as a real one. */
export const QUICK: Pick<ContainersOptions, "patience" | "staleLockGraceMs"> = {
  patience: { baseMs: 100, capMs: 1_000, clusterMs: 5_000, lockMs: 30_000 },
  staleLockGraceMs: 500,
};

/** Makes a host in a directory of its own; `dispose` removes it. */
export async function createFixture(options: Partial<SimulatedHostOptions> = {}): Promise<Fixture> {
  const root = await mkdtemp(join(tmpdir(), "cloudpods-containers-"));
  const host = await createSimulatedHost({ root: join(root, "host"), nodeName: "pve1", speed: 0.02, ...options });
  const paths = agentPaths(host);
  const operationsDir = join(root, "operations");
  const restart = (overrides: Partial<ContainersOptions> = {}): Containers =>
    createContainers({
      paths,
      operationsDir,
      clock: { epochMs: Date.now, monotonicMs: () => performance.now() },
      log: pino({ level: "silent" }),
      ...QUICK,
      ...overrides,
    });
  return {
    host,
    paths,
    operationsDir,
    containers: restart(),
    restart,
    dispose: () => rm(root, { recursive: true, force: true, maxRetries: 5 }),
  };
}

/** The agent's names of a simulated host's paths. */
function agentPaths({ paths }: SimulatedHost): HostPaths {
  return {
    pctPath: paths.pct,
    pvesmPath: paths.pvesm,
    vzdumpPath: paths.vzdump,
    pveversionPath: paths.pveversion,
    umountPath: paths.umount,
    zstdPath: paths.zstd,
    lxcStopPath: paths.lxcStop,
    pveRoot: paths.pveRoot,
    cgroupRoot: paths.cgroupRoot,
    procRoot: paths.procRoot,
    netClassRoot: paths.netClassRoot,
    taskLogRoot: join(paths.taskLogRoot, "tasks"),
    lxcRoot: paths.lxcRoot,
    runRoot: join(paths.runRoot, "pve"),
  };
}

export const POD_ID = "0193a5b0-1111-7abc-8def-000000000001";
export const VMID = 100_001;
export const SSH_KEY = `ssh-ed25519 ${"A".repeat(68)} alice@example.org`;

/** A small container cloned from the host's template. */
export function cloneSpec(
  host: Pick<SimulatedHost, "templateVmid">,
  change: Partial<ContainerSpec> = {},
): ContainerSpec {
  return {
    hostname: "pod-1.example.org",
    cores: 2,
    memoryMb: 1024,
    swapMb: 256,
    diskGb: 4,
    storage: "local-lvm",
    pool: "",
    network: {
      bridge: "vmbr0",
      mac: "BC:24:11:00:00:01",
      ip: "dhcp",
      gateway: "",
      rateLimitKibPerSecond: 1280,
      firewall: false,
      vlanTag: 0,
      ipFilter: false,
    },
    source: { $case: "clone", value: { templateVmid: host.templateVmid, full: false } },
    unprivileged: true,
    nesting: true,
    sshAuthorizedKeys: [],
    nameserver: "",
    searchDomain: "",
    ...change,
  };
}

/** A wish for the pod of these tests, of generation 1 unless said otherwise. */
export function wishFor(change: Partial<ContainerWish> = {}): ContainerWish {
  return { podId: POD_ID, vmid: VMID, fleetEpoch: 1n, generation: 1n, present: true, ...change };
}

/** The wish for a running container. */
export function runningWish(spec: ContainerSpec, change: Partial<ContainerWish> = {}): ContainerWish {
  return wishFor({ spec, power: Power.POWER_RUNNING, ...change });
}

/** Bounds of one command; nothing is journalled. */
export function bounds(change: Partial<ConvergeOptions> = {}): ConvergeOptions {
  return {
    commandId: randomUUID(),
    signal: new AbortController().signal,
    deadlineMs: 60_000,
    absentBefore: false,
    recordAbsent: () => undefined,
    ...change,
  };
}

/** The configuration of a container as the host has it; undefined when there is none. */
export function configOf(fixture: Fixture, vmid: number): ContainerConfig | undefined {
  const path = join(fixture.paths.pveRoot, "lxc", `${vmid}.conf`);
  return existsSync(path) ? parseContainerConfig(readFileSync(path, "utf8")) : undefined;
}

/** The lock in a container's configuration; undefined when it has none. */
export function lockOf(fixture: Fixture, vmid: number): string | undefined {
  return configOf(fixture, vmid)?.options.get("lock");
}

/** Names of a container's volumes on the storage of these tests. */
export function volumesOf(fixture: Fixture, vmid: number): string[] {
  const storage = join(fixture.host.paths.storageRoot, "local-lvm");
  return readdirSync(storage).filter((name) => name.includes(`-${vmid}-`));
}

/** Removes the pod's container, if there is one, so that the next test finds a clean host. */
export async function removePod(fixture: Fixture): Promise<void> {
  fixture.host.clearFaults();
  if (parseMarker(configOf(fixture, VMID)?.description ?? "") === undefined) return;
  await fixture.containers.converge(wishFor({ present: false, generation: 9n }), bounds());
}
