import type { ArchiveOrder, ContainerOutcome, ExecutionOptions } from "../containers/containers.ts";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { zstdTest } from "../pct/pct-arguments.ts";
import { findArchive, observationOfAbsence, observationOfArchive, requireArchive } from "./archives.ts";
import { carryOutAside, patiently } from "./deed.ts";

/**
 * Reads an archive from its first byte to its last and compares the checksums that zstd wrote into it. That
 * proves that the file is there, readable, complete and as it was written. It does not prove that the files in
 * it are what the container held, nor that a container made from it starts: only a restore shows that. vzdump
 * gives an archive its name only when tar has ended well, so a cut one is not taken for a whole.
 * @throws ContainerFailure when the storage does not answer; an archive that is gone or damaged is an answer
 */
export async function verifyBackup(
  order: ArchiveOrder,
  options: ExecutionOptions,
  doors: ConvergeDoors,
): Promise<ContainerOutcome> {
  const name = requireArchive(order.volumeId);
  return carryOutAside(options, doors, (execution) =>
    patiently(execution, doors, async () => {
      const found = await findArchive(name, execution);
      if (found === undefined) return { backup: observationOfAbsence(order.volumeId) };
      if (found.sizeBytes === 0n) return { backup: observationOfArchive(found) };
      if (name.compression !== "zst") {
        const message = `${order.volumeId} is not compressed with zstd and carries no checksums`;
        throw new ContainerFailure("BACKUP_FORMAT_UNSUPPORTED", message, { retryable: false });
      }
      const read = () => execution.look(zstdTest(found.path));
      const { end } = await (order.atOnce === true ? read() : doors.readTurns.take(execution.signal, read));
      if (end.kind !== "exited") {
        throw new ContainerFailure("INTERRUPTED", "the program that reads the archive was killed", { retryable: true });
      }
      // Removed while it was read: zstd then complains about the file, not about its content.
      if (end.exitCode !== 0 && (await findArchive(name, execution)) === undefined) {
        return { backup: observationOfAbsence(order.volumeId) };
      }
      return { backup: observationOfArchive(found, { readable: end.exitCode === 0 }) };
    }),
  );
}
