import type { StorageStatus } from "../pct/parse-pct-output.ts";

/** `pvesm` costs a third of a second of a processor: an idle host starts it six times an hour. */
const KNOWN_AGE_MS = 600_000;
/** When a session begins or somebody asks; also how soon a failed question is asked again. */
const RECENT_AGE_MS = 60_000;
/** How long an inventory waits for `pvesm`, which hangs with the storage that it asks. */
const STATUS_WAIT_MS = 10_000;

/** How old sizes may be: `recent` a minute, `known` ten. */
export type SizesAge = "recent" | "known";

/** Sizes of the storages, asked for rarely. */
export interface StorageSizes {
  /** The last known sizes; of storages that did not answer lately there are none. */
  read(age: SizesAge): Promise<readonly StorageStatus[]>;
}

/**
 * Remembers the answers of `ask` and never asks twice at a time.
 *
 * @param ask runs `pvesm status`; undefined when it failed
 * @param nowMs any clock that only goes forward
 */
export function createStorageSizes(
  ask: () => Promise<readonly StorageStatus[] | undefined>,
  nowMs: () => number,
): StorageSizes {
  let known: { readonly statuses: readonly StorageStatus[] | undefined; readonly atMs: number } | undefined;
  let asking: Promise<void> | undefined;
  const isFresh = (age: SizesAge): boolean => {
    if (known === undefined) return false;
    const isPatient = age === "known" && known.statuses !== undefined;
    return nowMs() - known.atMs <= (isPatient ? KNOWN_AGE_MS : RECENT_AGE_MS);
  };
  return {
    read: async (age) => {
      if (!isFresh(age)) {
        asking ??= ask()
          .catch(() => undefined)
          .then((statuses) => void (known = { statuses, atMs: nowMs() }))
          .finally(() => (asking = undefined));
        await Promise.race([asking, expiry(STATUS_WAIT_MS)]);
      }
      return known?.statuses ?? [];
    },
  };
}

async function expiry(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms).unref());
}
