import { setTimeout as pause } from "node:timers/promises";
import { lockOf, networkOf, observationOf } from "./observed-container.ts";
import type { ContainerHere, ObservedContainer } from "./observed-container.ts";
import type { ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { HostPaths } from "../pct/host-paths.ts";
import { readCluster, readConfigFile } from "../pct/read-cluster.ts";
import type { ClusterState } from "../pct/read-cluster.ts";
import { readRunningVmids } from "../pct/read-kernel.ts";
import { holdsLock, readLiveTasks } from "../pct/read-tasks.ts";
import { ContainerFailure } from "./container-failure.ts";

/** How often files and list of the cluster may disagree, as they do while a container appears or goes. */
const MAX_LOOKS = 5;
const LOOK_PAUSE_MS = 100;

/** What the host says of its containers, read without starting a program. */
export interface HostView {
  /** @throws ContainerFailure HOST_UNKNOWN when /etc/pve cannot be trusted */
  cluster(): Promise<ClusterState>;
  /** @throws ContainerFailure HOST_UNKNOWN */
  observe(vmid: number): Promise<ObservedContainer>;
  /** The wire form; undefined unless the container is on this host. */
  describe(vmid: number, observed: ObservedContainer): ContainerObservation | undefined;
  /** Remembers what DHCP gave a container, until its interface changes. */
  learnAddress(vmid: number, observed: ContainerHere, address: string): void;
}

/**
 * Makes a view. A lock counts as stale when it was seen without a living holder for `staleLockGraceMs`
 * on an unchanged file: Proxmox writes some locks a moment before it lists the task that holds them.
 */
export function createHostView(paths: HostPaths, staleLockGraceMs: number): HostView {
  const orphanedSince = new Map<number, { sha256: string; sinceMs: number }>();
  const addresses = new Map<number, { mac: string; address: string }>();

  const cluster = async (): Promise<ClusterState> => {
    const state = await readCluster(paths.pveRoot);
    if (state !== undefined) return state;
    const message = "the cluster file system is not mounted or does not answer";
    throw new ContainerFailure("HOST_UNKNOWN", message, { retryable: true });
  };

  const isStale = async (vmid: number, lock: string, sha256: string): Promise<boolean> => {
    if (lock === "" || holdsLock(await readLiveTasks(paths), vmid, lock)) {
      orphanedSince.delete(vmid);
      return false;
    }
    const seen = orphanedSince.get(vmid);
    const nowMs = performance.now();
    if (seen?.sha256 !== sha256) orphanedSince.set(vmid, { sha256, sinceMs: nowMs });
    return nowMs - (seen?.sha256 === sha256 ? seen.sinceMs : nowMs) >= staleLockGraceMs;
  };

  const observeMissing = async (vmid: number): Promise<ObservedContainer | undefined> => {
    // Asked again after the file was missed: a cluster file system that went away in between shows
    // no files either.
    const { nodeName, owners } = await cluster();
    const owner = owners.get(vmid);
    orphanedSince.delete(vmid);
    if (owner === undefined) return { where: "nowhere" };
    const isListedHere = owner.node === nodeName && owner.type === "lxc";
    return isListedHere ? undefined : { where: "elsewhere", ...owner };
  };

  const observe = async (vmid: number): Promise<ObservedContainer> => {
    for (let look = 0; look < MAX_LOOKS; look += 1) {
      const { nodeName } = await cluster();
      const file = await readConfigFile(paths.pveRoot, nodeName, vmid);
      if (file !== undefined) {
        const { config, sha256, digest } = file;
        const running = (await readRunningVmids(paths)).has(vmid);
        const lockIsStale = await isStale(vmid, lockOf(config), sha256);
        return { where: "here", config, configSha256: sha256, digest, running, lockIsStale };
      }
      const missing = await observeMissing(vmid);
      if (missing !== undefined) return missing;
      await pause(LOOK_PAUSE_MS);
    }
    const message = `the cluster lists container ${vmid} on this host and shows no configuration of it`;
    throw new ContainerFailure("HOST_UNKNOWN", message, { retryable: true });
  };

  return {
    cluster,
    observe,
    describe: (vmid, observed) => {
      if (observed.where !== "here") return undefined;
      const known = addresses.get(vmid);
      const current = observed.running && known?.mac === networkOf(observed.config).get("hwaddr");
      return observationOf(vmid, observed, current ? known?.address : undefined);
    },
    learnAddress: (vmid, { config }, address) => {
      addresses.set(vmid, { mac: networkOf(config).get("hwaddr") ?? "", address });
    },
  };
}

/**
 * Asked right before every change: without quorum `pct destroy` removes the disk, cannot remove the
 * entry, and leaves a container without data. @throws ContainerFailure NO_QUORUM or HOST_UNKNOWN
 */
export async function requireQuorum(view: HostView): Promise<void> {
  if ((await view.cluster()).quorate) return;
  throw new ContainerFailure("NO_QUORUM", "the cluster has no quorum", { retryable: true });
}
