import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { Journal } from "./journal.ts";

/** Results are kept this long so that a control plane that was restored can ask for them again. */
const KEPT_MS = 30 * 24 * 3_600_000;

/**
 * Removes what the control plane has had for long enough; returns how many. Before the first contact
 * nothing: a clock of the host that runs ahead would make everything old.
 */
export function pruneJournal(
  journal: Pick<Journal, "prune">,
  clock: Pick<DisciplinedClock, "epochMs" | "isSynchronised">,
): number {
  return clock.isSynchronised() ? journal.prune(clock.epochMs() - KEPT_MS) : 0;
}
