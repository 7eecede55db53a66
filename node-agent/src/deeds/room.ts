import { ContainerFailure } from "../containers/container-failure.ts";
import type { RestoreOrder } from "../containers/containers.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { look } from "../containers/look.ts";
import { argumentVector } from "../pct/command-line.ts";
import { parseStorageStatus } from "../pct/parse-pct-output.ts";
import { pvesmStatus } from "../pct/pct-arguments.ts";

/** How long a storage may take to tell its size. */
const STATUS_MS = 30_000;

/**
 * Does something while there is room for a second disk of the container, as the storage itself says at this moment: Proxmox
 * makes the new one beside the old one, which goes before the new one is filled. A thin pool counts by what is written to it,
 * and restores into one storage at a time do not count on the same room.
 * @throws ContainerFailure STORAGE_FULL, STORAGE_UNAVAILABLE, or as the work
 */
export async function withRoomBeside<T>(
  { vmid, spec: { storage, diskGb } }: Pick<RestoreOrder, "vmid" | "spec">,
  signal: AbortSignal,
  { paths, runner, promisedRoom }: Pick<ConvergeDoors, "paths" | "runner" | "promisedRoom">,
  work: () => Promise<T>,
): Promise<T> {
  const neededKib = BigInt(diskGb) << 20n;
  const output = await look(runner, argumentVector(paths, pvesmStatus(storage)), signal, STATUS_MS);
  const status = parseStorageStatus(output?.stdout ?? "").find((one) => one.storage === storage);
  if (status?.available !== true) {
    const message = `storage ${storage} does not say how much room it has`;
    throw new ContainerFailure("STORAGE_UNAVAILABLE", message, { retryable: true });
  }
  const promisedKib = promisedRoom.get(storage) ?? 0n;
  const freeKib = status.totalKib - status.usedKib;
  // A storage that has no size to tell is not full.
  if (status.totalKib > 0n && freeKib - promisedKib < neededKib) {
    const [freeGb, promisedGb] = [freeKib > 0n ? freeKib >> 20n : 0n, promisedKib >> 20n];
    // What another restore fills counts twice, until its former disk goes.
    const passes = freeKib >= neededKib;
    const message =
      `a restore in place needs ${diskGb} GB beside the disk of container ${vmid} until that is replaced, ` +
      `and storage ${storage} has ${freeGb} GB left` +
      (passes
        ? `, ${promisedGb} GB of them for restores that are under way`
        : "; the backup can be restored as a new pod");
    throw new ContainerFailure("STORAGE_FULL", message, { retryable: passes });
  }
  promisedRoom.set(storage, promisedKib + neededKib);
  try {
    return await work();
  } finally {
    promisedRoom.set(storage, (promisedRoom.get(storage) ?? 0n) - neededKib);
  }
}
