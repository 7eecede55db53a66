import { ContainerFailure } from "../containers/container-failure.ts";
import type { RestoreOrder } from "../containers/containers.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { look } from "../containers/look.ts";
import { argumentVector } from "../pct/command-line.ts";
import { parseStorageStatus, type StorageStatus } from "../pct/parse-pct-output.ts";
import { pvesmStatus } from "../pct/pct-arguments.ts";

/** How long a storage may take to tell its size. */
const STATUS_MS = 30_000;

type Disk = Pick<RestoreOrder, "vmid" | "spec">;
type RoomDoors = Pick<ConvergeDoors, "paths" | "runner" | "promisedRoom">;

/**
 * Does something while there is room for a second disk of the container, as the storage itself says at this moment: Proxmox
 * makes the new one beside the old one, which goes before the new one is filled. A thin pool counts by what is written to it,
 * and restores into one storage at a time do not count on the same room.
 * @throws ContainerFailure STORAGE_FULL, STORAGE_UNAVAILABLE, or as the work
 */
export async function withRoomBeside<T>(
  disk: Disk,
  signal: AbortSignal,
  doors: RoomDoors,
  work: () => Promise<T>,
): Promise<T> {
  const { promisedRoom } = doors;
  const { storage } = disk.spec;
  const promiseMore = (kib: bigint) => promisedRoom.set(storage, (promisedRoom.get(storage) ?? 0n) + kib);
  // Nothing comes between the look and the promise.
  refuseFull(disk, await readStatus(storage, signal, doors), promisedRoom);
  promiseMore(neededKib(disk));
  try {
    return await work();
  } finally {
    promiseMore(-neededKib(disk));
  }
}

/** Whether that would be begun at this moment; no room is promised for it. @throws ContainerFailure as `withRoomBeside` */
export async function requireRoomBeside(disk: Disk, signal: AbortSignal, doors: RoomDoors): Promise<void> {
  refuseFull(disk, await readStatus(disk.spec.storage, signal, doors), doors.promisedRoom);
}

function neededKib({ spec: { diskGb } }: Disk): bigint {
  return BigInt(diskGb) << 20n;
}

async function readStatus(storage: string, signal: AbortSignal, { paths, runner }: RoomDoors): Promise<StorageStatus> {
  const output = await look(runner, argumentVector(paths, pvesmStatus(storage)), signal, STATUS_MS);
  const status = parseStorageStatus(output?.stdout ?? "").find((one) => one.storage === storage);
  if (status?.available === true) return status;
  const message = `storage ${storage} does not say how much room it has`;
  throw new ContainerFailure("STORAGE_UNAVAILABLE", message, { retryable: true });
}

function refuseFull(disk: Disk, { totalKib, usedKib }: StorageStatus, promisedRoom: RoomDoors["promisedRoom"]): void {
  const {
    vmid,
    spec: { storage, diskGb },
  } = disk;
  const promisedKib = promisedRoom.get(storage) ?? 0n;
  const freeKib = totalKib - usedKib;
  // A storage that has no size to tell is not full.
  if (totalKib === 0n || freeKib - promisedKib >= neededKib(disk)) return;
  const [freeGb, promisedGb] = [freeKib > 0n ? freeKib >> 20n : 0n, promisedKib >> 20n];
  // What another restore fills counts twice, until its former disk goes.
  const passes = freeKib >= neededKib(disk);
  const message =
    `a restore in place needs ${diskGb} GB beside the disk of container ${vmid} until that is replaced, ` +
    `and storage ${storage} has ${freeGb} GB left` +
    (passes
      ? `, ${promisedGb} GB of them for restores that are under way`
      : "; the backup can be restored as a new pod");
  throw new ContainerFailure("STORAGE_FULL", message, { retryable: passes });
}
