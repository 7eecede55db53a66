import { join } from "node:path";
import { storageGroup } from "../pool-guard.ts";
import type { FilesystemProbe } from "./filesystem-probe.ts";
import type { RootUsage } from "./read-container.ts";

/** A running container whose root file system can be asked. */
export interface RootTarget {
  readonly vmid: number;
  /** Proxmox storage of the root disk. */
  readonly storage: string;
  /** Host's pid of its first process: /proc/<pid>/root is the container's view of its root. */
  readonly initPid: number;
}

/** The fill levels of the containers' root file systems. */
export interface RootUsages {
  /** Asks again for the targets whose figures are oldest, those without one first. */
  refresh(targets: readonly RootTarget[]): Promise<void>;
  /** The last figure; undefined while there is none or the file system does not answer. */
  of(vmid: number): RootUsage | undefined;
  /** The last figure even of a file system that does not answer any more. */
  lastOf(vmid: number): RootUsage | undefined;
  /** Forgets containers that are not in the set. */
  retain(vmids: ReadonlySet<number>): void;
}

/** A healthy file system answers in microseconds; a disk that spins up in less than this. */
const DEADLINE_MS = 1000;
/**
 * Containers asked in one tick. Each question passes through a thread and costs 40 µs of processor,
 * more than all other files of a container together; with more containers than this a figure is
 * some ticks old.
 */
const MAX_ASKED = 100;

interface Entry {
  usage: RootUsage | undefined;
  /** Process that `usage.device` was learned from: another one may lie on another device. */
  deviceOfPid: number | undefined;
  isResponsive: boolean;
  /** Number of the round that asked last. */
  askedInRound: number;
}

/** Makes an empty memory of fill levels. */
export function createRootUsages(procRoot: string, probe: FilesystemProbe): RootUsages {
  const entries = new Map<number, Entry>();
  let round = 0;

  function entryOf(vmid: number): Entry {
    const entry = entries.get(vmid) ?? {
      usage: undefined,
      deviceOfPid: undefined,
      isResponsive: true,
      askedInRound: 0,
    };
    entries.set(vmid, entry);
    return entry;
  }

  async function ask({ vmid, storage, initPid }: RootTarget): Promise<void> {
    const entry = entryOf(vmid);
    entry.askedInRound = round;
    const path = join(procRoot, String(initPid), "root");
    const group = storageGroup(storage);
    let device = entry.deviceOfPid === initPid ? entry.usage?.device : undefined;
    if (device === undefined) {
      const answer = await probe.device(group, path, DEADLINE_MS);
      entry.isResponsive = answer.kind !== "unresponsive";
      // A failure means that this process has ended: the figures of the volume still hold.
      if (answer.kind !== "answered") return;
      device = answer.device;
    }
    const size = await probe.size(group, path, DEADLINE_MS);
    entry.isResponsive = size.kind !== "unresponsive";
    if (size.kind !== "answered") return;
    entry.usage = { usedBytes: size.totalBytes - size.freeBytes, device };
    entry.deviceOfPid = initPid;
  }

  return {
    async refresh(targets) {
      round += 1;
      const withoutFigure = targets.filter(({ vmid }) => entryOf(vmid).usage === undefined).length;
      const oldest = targets
        .toSorted((a, b) => entryOf(a.vmid).askedInRound - entryOf(b.vmid).askedInRound)
        .slice(0, Math.max(MAX_ASKED, withoutFigure));
      await Promise.all(oldest.map(ask));
    },
    of(vmid) {
      const entry = entries.get(vmid);
      return entry?.isResponsive === true ? entry.usage : undefined;
    },
    lastOf: (vmid) => entries.get(vmid)?.usage,
    retain(vmids) {
      for (const vmid of entries.keys()) if (!vmids.has(vmid)) entries.delete(vmid);
    },
  };
}
