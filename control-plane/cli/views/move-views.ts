import { DomainError } from "@cloudpods/shared/errors";
import type { AnswerOf } from "../api/endpoints.ts";
import { TaskFailedError } from "../errors.ts";
import { countOf, formatBrief, formatDuration } from "../terminal/format.ts";
import { renderTable } from "../terminal/table.ts";

type PlannedMove = AnswerOf<"previewMigrate">;
type Plan = AnswerOf<"previewDrain">;

/** What would be done about one pod, in words. `wanted`: the host that was named for it. */
export function renderPlannedMove(move: PlannedMove, wanted?: string): string {
  const { target, strategy, backupsLeftBehind: behind, commands } = move;
  const name = nameOf(move);
  if (target === null)
    return `${name} would not move${wanted === undefined ? "" : ` to ${wanted}`}.\nNothing was changed.`;
  return [
    `${name} would move to ${target.node} (storage ${target.storage}) by ${strategy ?? "an unknown way"}.`,
    `Away: ${costOf(move.expectedDowntimeMs)}; all of it: ${costOf(move.expectedDurationMs)}`,
    ...(behind.length === 0
      ? []
      : [`Out of reach from there: ${countOf(behind.length, "backup")} (${behind.join(", ")})`]),
    "The hosts would be told:",
    ...toldLines(commands),
    "Nothing was changed.",
  ].join("\n");
}

/** What hosts would be told and would run for it, line by line. */
export function toldLines(commands: PlannedMove["commands"]): string[] {
  return commands.flatMap(({ node, command, lines, reason }) => [
    `  ${node}: ${command}${lines === null ? ` (${reason ?? "not known"})` : ""}`,
    ...(lines ?? []).map((line) => `    ${line}`),
  ]);
}

/** @throws DomainError of the kind that the real request would be refused with */
export function requireTarget({ blocker }: PlannedMove): void {
  if (blocker === null) return;
  const isFull = blocker.code === "NO_CAPACITY" || blocker.code === "NO_HOST";
  const kind = isFull ? "no-capacity" : "wrong-state";
  throw new DomainError(kind, blocker.code, blocker.message);
}

/** What the emptying or giving up of a host would do, a line for each pod. */
export function renderDrainPlan({ node, moves, movable, totalMs }: Plan): string {
  const table = renderTable<PlannedMove>(
    [
      { name: "vmid", value: ({ vmid }) => vmid },
      { name: "pod", value: ({ name }) => name },
      { name: "to", value: ({ target }) => target?.node },
      { name: "storage", value: ({ target }) => target?.storage },
      { name: "way", value: ({ strategy }) => strategy },
      { name: "away", value: ({ expectedDowntimeMs: ms }) => (ms === null ? null : formatBrief(ms)) },
      { name: "takes", value: ({ expectedDurationMs: ms }) => (ms === null ? null : formatBrief(ms)) },
      { name: "from", value: sourceOf },
      { name: "backups left", value: ({ backupsLeftBehind }) => backupsLeftBehind.length },
      { name: "blocker", value: ({ blocker }) => blocker?.code },
    ],
    moves,
  );
  const time = movable === 0 ? "" : `; time for all of it: ${costOf(totalMs)}`;
  return [
    ...(moves.length === 0 ? [] : [table]),
    `${movable} of ${countOf(moves.length, "pod")} of ${node} would find a place elsewhere${time}.`,
    "Nothing was changed.",
  ].join("\n");
}

/**
 * @param accepted blockers that the order itself deals with
 * @param isGivenUp the plan is of an evacuation
 * @throws TaskFailedError with the reasons by pod where some would stay
 */
export function requirePlaces({ node, moves }: Plan, accepted: readonly string[] = [], isGivenUp = false): void {
  const reasons = moves.flatMap((move) =>
    move.blocker === null || accepted.includes(move.blocker.code)
      ? []
      : [`  ${nameOf(move)}: ${move.blocker.message} (${move.blocker.code})`],
  );
  const what = isGivenUp ? `Not all pods of ${node} would come back:` : `${node} would not be emptied:`;
  if (reasons.length > 0) throw new TaskFailedError([what, ...reasons].join("\n"));
}

/** Name and VMID of a pod in a plan or a drain. */
export function nameOf({ name, vmid }: { readonly name: string; readonly vmid: number }): string {
  return `${name} (${vmid})`;
}

/** Of an evacuation: what the pod comes back from. */
function sourceOf({ archive }: PlannedMove): string | null {
  if (archive === undefined) return null;
  return archive === null ? "its own disk" : `backup, ${formatDuration(archive.ageSeconds * 1_000)} old`;
}

function costOf(ms: number | null): string {
  return ms === null ? "not known yet" : `about ${formatBrief(ms)}`;
}
