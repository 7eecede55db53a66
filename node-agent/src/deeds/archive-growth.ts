import { readdir, stat } from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { BackupOrder, ContainerProgress } from "../containers/containers.ts";
import { halfMadeFiles, parseArchiveVolume, parseDumpLog } from "../pct/parse-archives.ts";
import { onStorage } from "./archives.ts";

/** How often the archive is looked at. */
const LOOK_MS = 5_000;
/** What is written last, and a guest that has grown since, may take longer than was thought. */
const PERCENT_MAX = 95;

/**
 * Tells how far vzdump is, which says nothing of it for containers: its lines, and how large the archive is against the
 * container's last one on that storage. Where there is none nothing is known of it, and nothing is told.
 */
export async function tellingGrowth<T>(
  { storage, vmid }: Pick<BackupOrder, "storage" | "vmid">,
  report: (progress: ContainerProgress) => void,
  work: (onLine: (line: string) => void) => Promise<T>,
  everyMs = LOOK_MS,
): Promise<T> {
  const over = new AbortController();
  let percent = 0;
  const tell = (detail: string): void => report({ step: "vzdump", percent, detail });
  const follow = async (path: string): Promise<void> => {
    const [half = ""] = halfMadeFiles(path);
    const expected = await lastSize(storage, vmid, path);
    while (expected !== undefined) {
      await pause(everyMs, undefined, { signal: over.signal, ref: false });
      // A file on a network that is being written to may answer late; the next look may be in time.
      const size = (await sizeOf(storage, half).catch(() => undefined)) ?? 0;
      const now = Math.min(PERCENT_MAX, Math.floor((100 * size) / expected));
      if (now <= percent || over.signal.aborted) continue;
      percent = now;
      tell(`${mb(size)} MB are written; the last archive has ${mb(expected)} MB`);
    }
  };
  try {
    return await work((line) => {
      tell(line);
      const path = parseDumpLog(line, vmid).archivePath;
      // A storage that does not say what it has, and the end of the work, end the telling and nothing else.
      if (path !== undefined) void follow(path).catch(() => undefined);
    });
  } finally {
    over.abort();
  }
}

/** Size of the newest archive of the container beside the one that is being made, in bytes; undefined for none. */
async function lastSize(storage: string, vmid: number, path: string): Promise<number | undefined> {
  const folder = dirname(path);
  const names = await onStorage<string[]>(storage, folder, (done) => readdir(folder, done));
  // Their names begin with the time.
  const last = names
    ?.filter((name) => name !== basename(path) && parseArchiveVolume(`${storage}:backup/${name}`)?.vmid === vmid)
    .toSorted()
    .at(-1);
  const size = last === undefined ? undefined : await sizeOf(storage, join(folder, last));
  return size === 0 ? undefined : size;
}

async function sizeOf(storage: string, path: string): Promise<number | undefined> {
  return (await onStorage<{ size: number }>(storage, path, (done) => stat(path, done)))?.size;
}

function mb(bytes: number): number {
  return Math.round(bytes / 1e6);
}
