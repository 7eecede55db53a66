import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../agent-error.ts";
import { parseMarker } from "../containers/marker.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { parseContainerConfig, parseRootDisk } from "../pct/parse-pct-config.ts";
import { parseCpuCount } from "./parse-kernel.ts";
import type { MeteredPod } from "./sample-interval.ts";

/** A container of ours as its configuration file has it. */
export interface MeteredContainer extends MeteredPod {
  /** Proxmox storage of its root disk; what hangs, hangs for all of a storage. */
  readonly storage: string;
  readonly generation: bigint;
}

/** The containers of this host that carry our marker, kept up to date by the files' times. */
export interface MeteredContainers {
  /**
   * Looks at the configuration files again and returns every container of ours by VMID. Undefined
   * while they were never readable: an unmounted /etc/pve says nothing, and what it said before holds.
   */
  refresh(): ReadonlyMap<number, MeteredContainer> | undefined;
}

/** Proxmox's default for a container without a `memory` line, MiB (pct.conf(5)). */
const DEFAULT_MEMORY_MB = 512;
const GIB = 2 ** 30;
/**
 * pmxcfs keeps whole seconds only: a file changed less than this before it was read may change
 * again without a new time, so such a reading is not relied upon. Two seconds allow for rounding.
 */
const FRESH_MS = 2000;

interface CachedConfig {
  readonly mtimeMs: number;
  readonly size: number;
  readonly isSettled: boolean;
  readonly container: MeteredContainer | undefined;
}

/** Makes an empty memory of the configuration files of a host. */
export function createMeteredContainers(paths: Pick<HostPaths, "pveRoot" | "procRoot">): MeteredContainers {
  const folder = join(paths.pveRoot, "lxc");
  const hostCores = parseCpuCount(readFileSync(join(paths.procRoot, "stat"), "utf8"));
  let configs: Map<number, CachedConfig> | undefined;

  function lookAt(vmid: number): CachedConfig {
    const path = `${folder}/${vmid}.conf`;
    const { mtimeMs, size } = statSync(path);
    const cached = configs?.get(vmid);
    if (cached?.isSettled === true && cached.mtimeMs === mtimeMs && cached.size === size) return cached;
    // A clock that was set back makes ages negative; those files are read each time.
    const ageMs = Date.now() - mtimeMs;
    const container = meteredContainer(vmid, readFileSync(path, "utf8"), hostCores);
    return { mtimeMs, size, isSettled: ageMs > FRESH_MS, container };
  }

  return {
    refresh() {
      const vmids = listVmids(folder);
      if (vmids !== undefined) {
        const next = new Map<number, CachedConfig>();
        for (const vmid of vmids) {
          const config = withoutVanished(() => lookAt(vmid));
          if (config !== undefined) next.set(vmid, config);
        }
        configs = next;
      }
      return configs === undefined ? undefined : originals(configs.values());
    },
  };
}

/**
 * A container of ours, out of the text of its file; undefined when it carries no marker of ours.
 *
 * @param hostCores logical processors of the host: what a container without a `cores` line may use
 */
export function meteredContainer(vmid: number, text: string, hostCores: number): MeteredContainer | undefined {
  const config = parseContainerConfig(text);
  const marker = parseMarker(config.description);
  if (marker === undefined) return undefined;
  const whole = (key: string, fallback: number): number => {
    const value = config.options.get(key) ?? "";
    return /^\d{1,9}$/u.test(value) ? Number(value) : fallback;
  };
  const disk = parseRootDisk(config.options.get("rootfs") ?? "");
  return {
    vmid,
    podId: marker.podId,
    generation: marker.generation,
    storage: disk?.storage ?? "",
    allocation: {
      cores: whole("cores", hostCores),
      memoryMb: whole("memory", DEFAULT_MEMORY_MB),
      diskGb: Math.round((disk?.sizeBytes ?? 0) / GIB),
    },
  };
}

/**
 * One container for each pod. A container copied by hand carries the marker of its original; both
 * would be billed to one pod. The higher generation is the one that we placed, then the higher VMID:
 * ours come from a range far above the one that Proxmox proposes for copies.
 */
function originals(configs: Iterable<CachedConfig>): Map<number, MeteredContainer> {
  const ofPod = new Map<string, MeteredContainer>();
  for (const { container } of configs) {
    if (container === undefined) continue;
    const other = ofPod.get(container.podId);
    if (other === undefined || isOriginal(container, other)) ofPod.set(container.podId, container);
  }
  return new Map([...ofPod.values()].map((container) => [container.vmid, container]));
}

function isOriginal(container: MeteredContainer, other: MeteredContainer): boolean {
  if (container.generation !== other.generation) return container.generation > other.generation;
  return container.vmid > other.vmid;
}

function listVmids(folder: string): number[] | undefined {
  try {
    return readdirSync(folder).flatMap((name) => {
      const vmid = /^([1-9]\d{2,8})\.conf$/u.exec(name)?.[1];
      return vmid === undefined ? [] : [Number(vmid)];
    });
  } catch (error) {
    const code = codeOf(error);
    // Not mounted, or pmxcfs behind the mount is dead (FUSE answers ENOTCONN).
    if (code === "ENOENT" || code === "ENOTCONN" || code === "EIO") return undefined;
    throw error;
  }
}

function withoutVanished(look: () => CachedConfig): CachedConfig | undefined {
  try {
    return look();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
