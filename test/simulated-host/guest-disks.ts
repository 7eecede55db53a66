import fs, { type BigIntStatsFs, type StatsFs } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { dirname, join } from "node:path";
import { readState } from "./files.ts";
import { SYSTEM_BYTES, type VolumeRecord } from "./volumes.ts";

/**
 * Preloaded into an agent's process: asked for the size of a container's root file system, the kernel tells that of the
 * container's volume. Without it, it is the disk of the machine that carries the simulation, of which a folder is a part.
 */
type Done = (error: NodeJS.ErrnoException | null, size?: StatsFs | BigIntStatsFs) => void;

const blockBytes = 4_096;
const kernels = fs.statfs;

function statfs(path: string, ...rest: readonly [Done] | readonly [{ readonly bigint?: boolean }, Done]): void {
  const [options, done] = rest.length === 1 ? [{}, rest[0]] : rest;
  fs.realpath(path, (error, folder) => {
    const volume = error === null ? readState<VolumeRecord>(join(dirname(folder), "disk.json")) : undefined;
    if (volume === undefined) return kernels(path, options, done);
    const size = sizeOf(volume);
    done(null, options.bigint === true ? bigIntsOf(size) : size);
  });
}

function sizeOf({ sizeBytes, usedBytes, parent }: VolumeRecord): StatsFs {
  // A linked clone occupies only what differs; in its file system is the whole system.
  const used = usedBytes + (parent === null ? 0 : SYSTEM_BYTES);
  const free = Math.max(0, Math.floor((sizeBytes - used) / blockBytes));
  const blocks = Math.floor(sizeBytes / blockBytes);
  return {
    type: 0xef53,
    bsize: blockBytes,
    frsize: blockBytes,
    blocks,
    bfree: free,
    bavail: free,
    files: blocks,
    ffree: free,
  };
}

function bigIntsOf(size: StatsFs): BigIntStatsFs {
  const entries = Object.entries(size).map(([name, value]) => [name, BigInt(value)]);
  // The same members.
  return Object.fromEntries(entries) as BigIntStatsFs;
}

// The promises' form is not used by the agent.
Object.assign(fs, { statfs });
syncBuiltinESMExports();
// What the agent starts is of the host and needs none of this.
delete process.env["NODE_OPTIONS"];
