import type { AnswerOf } from "../api/endpoints.ts";
import { countOf, formatAge, formatBytes, formatDuration, formatMb } from "../terminal/format.ts";
import { renderFields, renderTable, type Column } from "../terminal/table.ts";
import { orderLines } from "./dry-run-view.ts";
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

/** What a restore would do, in words. */
export function renderRestorePlan(plan: AnswerOf<"previewRestore">): string {
  const { backup, newerBackups: newer, newPod, runs, commands } = plan;
  if (newPod !== null) return renderNewPod(plan, newPod);
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

function renderNewPod(
  plan: AnswerOf<"previewRestore">,
  newPod: NonNullable<AnswerOf<"previewRestore">["newPod"]>,
): string {
  const { backup, newerBackups: newer, commands } = plan;
  const { hostname, planCode, cores, memoryMb, diskGb } = newPod;
  const size = `${countOf(cores, "core")}, ${formatMb(memoryMb)}, ${diskGb} GB`;
  const since = newer === 0 ? "" : `; there ${newer === 1 ? "is" : "are"} ${countOf(newer, "newer backup")}`;
  return [
    `${hostname} would be made of the backup of ${nameOf(plan)} of ${backup.madeAt}, ${formatDuration(backup.ageSeconds * 1_000)} old${since}.`,
    `Size:  ${planCode === null ? size : `${planCode} (${size})`}`,
    ...orderLines(newPod),
    ...(commands.length === 0 ? [] : ["Its host would be told:", ...toldLines(commands)]),
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
