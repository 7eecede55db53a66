import type { AnswerOf } from "../api/endpoints.ts";
import { countOf, formatAge, formatBytes, formatDuration } from "../terminal/format.ts";
import { renderFields, renderTable, type Column } from "../terminal/table.ts";
import { nameOf, toldLines } from "./move-views.ts";

type Backup = AnswerOf<"listBackups">["data"][number];

/** A table of backups. */
export function renderBackups(backups: readonly Backup[], nowMs: number): string {
  const columns: Column<Backup>[] = [
    { name: "id", value: ({ id }) => id },
    { name: "kind", value: ({ kind }) => kind },
    { name: "state", value: stateOf },
    {
      name: "size",
      value: ({ sizeBytes }) => (sizeBytes === null ? null : formatBytes(Number(sizeBytes))),
    },
    { name: "age", value: ({ startedAt }) => formatAge(startedAt, nowMs) },
    { name: "read", value: ({ verifiedAt }) => (verifiedAt === null ? null : `${formatAge(verifiedAt, nowMs)} ago`) },
    { name: "ends", value: ({ expiresAt }) => expiresAt },
    { name: "note", value: ({ note, error }) => error?.code ?? note },
  ];
  return renderTable(columns, backups);
}

/** What becomes of a backup that was to be deleted; one that is not there any more needs nobody. */
export function describeRemoval({ id, state }: Pick<Backup, "id" | "state">): string {
  return state === "available"
    ? `${id}: its host is told to remove it`
    : `${id}: it is ${state}, and nothing is left of it`;
}

/** What a restore in place would do, in words. */
export function renderRestorePlan(plan: AnswerOf<"previewRestore">): string {
  const { backup, newerBackups: newer, runs, commands } = plan;
  const stays =
    newer === 0 ? "there is no newer backup" : `${countOf(newer, "newer backup")} ${newer === 1 ? "stays" : "stay"}`;
  return [
    `${nameOf(plan)} would be put back to the backup of ${backup.madeAt}, ${formatDuration(backup.ageSeconds * 1_000)} old.`,
    `Lost: what was written since; ${stays}.`,
    `Its size, plan and address stay as they are, and it would ${runs ? "run" : "be stopped"} afterwards.`,
    "Its host would be told:",
    ...toldLines(commands),
    "Nothing was changed.",
  ].join("\n");
}

/** When a pod is backed up and which backups stay. */
export function renderPodPolicy(policy: AnswerOf<"showPodBackups">): string {
  return renderFields({
    ...rulesOf(policy),
    "rules of": policy.source === "plan" ? "the plan" : "the pod",
    next: policy.nextAt ?? undefined,
    "last good one": policy.lastSuccessAt,
  });
}

/** The backups that come with a plan. */
export function renderPlanPolicy(policy: AnswerOf<"showPlanBackups">): string {
  return renderFields({ plan: policy.planCode, ...rulesOf(policy) });
}

function rulesOf(policy: AnswerOf<"showPlanBackups"> | AnswerOf<"showPodBackups">) {
  const { enabled, everyHours, keepLast, keepDaily, keepWeekly } = policy;
  return {
    schedule: enabled ? `every ${everyHours} h` : "off",
    keeps: `the last ${keepLast}, one of each of ${keepDaily} days and ${keepWeekly} weeks (UTC)`,
  };
}

function stateOf({ state, damagedAt, deleteRequestedAt }: Backup): string {
  if (state !== "available") return state;
  if (deleteRequestedAt !== null) return "going";
  return damagedAt === null ? state : "DAMAGED";
}
