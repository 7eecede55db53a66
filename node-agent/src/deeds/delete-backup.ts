import type { ArchiveOrder, ContainerOutcome, ExecutionOptions } from "../containers/containers.ts";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { requireQuorum } from "../containers/host-view.ts";
import { classifyPctError } from "../pct/classify-pct-error.ts";
import { pvesmFree } from "../pct/pct-arguments.ts";
import { findArchive, observationOfAbsence, requireArchiveOf } from "./archives.ts";
import { carryOutAside, patiently } from "./deed.ts";

/**
 * Removes an archive of the order's container, with its notes and log. It is gone when it was looked for and not
 * found; what the program says is only the reason of a failure. @throws ContainerFailure
 */
export async function deleteBackup(
  order: ArchiveOrder,
  options: ExecutionOptions,
  doors: ConvergeDoors,
): Promise<ContainerOutcome> {
  const name = requireArchiveOf(order.vmid, order.volumeId);
  return carryOutAside(options, doors, (execution) =>
    patiently(execution, doors, async () => {
      const gone = { backup: observationOfAbsence(order.volumeId) };
      if ((await findArchive(name, execution)) === undefined) return gone;
      await requireQuorum(doors.view);
      const free = pvesmFree(order.volumeId);
      const { end, output } = await doors.heavyTurns.take(execution.signal, () => execution.look(free));
      if ((await findArchive(name, execution)) === undefined) return gone;
      const { code, message, retryable } = classifyPctError(output.stderr, output.stdout);
      if (end.kind === "exited" && end.exitCode !== 0) throw new ContainerFailure(code, message, { retryable });
      const lie = `pvesm free did not remove ${order.volumeId}`;
      throw new ContainerFailure("STEP_WITHOUT_EFFECT", lie, { retryable: true });
    }),
  );
}
