import type { StorageConfig } from "../pct/parse-pct-cluster.ts";
import type { StorageStatus } from "../pct/parse-pct-output.ts";
import { storageGroup } from "../pool-guard.ts";
import type { FilesystemProbe } from "../sampling/filesystem-probe.ts";

/** Also how soon it is asked again for a storage that is away; twice as long after each further failure. */
const RECENT_AGE_MS = 60_000;
const MAX_RETRY_MS = 3_600_000;
/** How long an inventory waits for `pvesm`, which hangs with the storage that it asks. */
const STATUS_WAIT_MS = 10_000;
/** How long a file system may take to tell its size, ms. */
const FILESYSTEM_DEADLINE_MS = 2_000;

/** How old sizes may be: `recent` a minute; `known` as old as what the agent itself did last to disks. */
export type SizesAge = "recent" | "known";

/** Sizes of the storages. */
export interface StorageSizes {
  /**
   * The last known sizes; of storages that did not answer lately there are none. What is kept in
   * directories is measured anew each time.
   */
  read(age: SizesAge, storages: readonly StorageConfig[]): Promise<readonly StorageStatus[]>;
  /** The agent has filled or freed disks: the next reading asks again. */
  changed(): void;
}

/** Where sizes come from. */
export interface StorageSizesOptions {
  /** Runs `pvesm status`, a third of a second of a processor; undefined when it failed. */
  readonly ask: () => Promise<readonly StorageStatus[] | undefined>;
  readonly probe: Pick<FilesystemProbe, "size">;
  /** Any clock that only goes forward. */
  readonly nowMs: () => number;
}

/** Remembers the answers of `ask`, never asks twice at a time, and nothing while nothing happens. */
export function createStorageSizes({ ask, probe, nowMs }: StorageSizesOptions): StorageSizes {
  let known: { readonly statuses: readonly StorageStatus[] | undefined; readonly atMs: number } | undefined;
  let failures = 0;
  let hasChanged = false;
  let asking: Promise<void> | undefined;

  const isDue = (age: SizesAge): boolean => {
    if (known === undefined) return true;
    const ageMs = nowMs() - known.atMs;
    if (age === "recent" || hasChanged) return ageMs > RECENT_AGE_MS;
    return failures > 0 && ageMs > Math.min(MAX_RETRY_MS, RECENT_AGE_MS * 2 ** (failures - 1));
  };
  const askAgain = async (storages: readonly StorageConfig[]): Promise<void> => {
    hasChanged = false;
    const statuses = await ask().catch(() => undefined);
    const isAway = ({ id }: StorageConfig): boolean =>
      statuses?.find(({ storage }) => storage === id)?.available !== true;
    failures = storages.some(isAway) ? failures + 1 : 0;
    known = { statuses, atMs: nowMs() };
  };
  return {
    read: async (age, storages) => {
      if (isDue(age)) {
        asking ??= askAgain(storages).finally(() => (asking = undefined));
        await Promise.race([asking, expiry(STATUS_WAIT_MS)]);
      }
      const paths = new Map(storages.map(({ id, path }) => [id, path]));
      return await Promise.all(
        (known?.statuses ?? []).map((status) => measured(status, paths.get(status.storage), probe)),
      );
    },
    changed: () => void (hasChanged = true),
  };
}

/**
 * A storage as its directory is now. One whose file system has not the size that Proxmox told is not
 * what Proxmox measured, e.g. because nothing is mounted there: then what Proxmox told holds.
 */
async function measured(
  status: StorageStatus,
  path: string | undefined,
  probe: Pick<FilesystemProbe, "size">,
): Promise<StorageStatus> {
  if (path === undefined || !status.available) return status;
  const answer = await probe.size(storageGroup(status.storage), path, FILESYSTEM_DEADLINE_MS);
  if (answer.kind === "unresponsive") return { ...status, available: false };
  if (answer.kind === "failed" || answer.totalBytes / 1024n !== status.totalKib) return status;
  return { ...status, usedKib: (answer.totalBytes - answer.freeBytes) / 1024n };
}

async function expiry(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms).unref());
}
