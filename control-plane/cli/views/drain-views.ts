import { drainPodHasLeft, drainPodStates } from "@cloudpods/shared/drain-lifecycle";
import type { AnswerOf } from "../api/endpoints.ts";
import { TaskFailedError } from "../errors.ts";
import { formatAge, formatBrief, formatDuration } from "../terminal/format.ts";
import { progressBar } from "../terminal/progress.ts";
import { renderFields, renderTable } from "../terminal/table.ts";
import { nameOf } from "./move-views.ts";

type Drain = AnswerOf<"listDrains">["data"][number];
type DrainDetail = AnswerOf<"showDrain">;
type DrainPod = DrainDetail["pods"][number];

const barWidth = 24;

/** A table of drains and evacuations. */
export function renderDrains(drains: readonly Drain[], nowMs: number): string {
  return renderTable<Drain>(
    [
      { name: "node", value: ({ node }) => node },
      { name: "kind", value: ({ kind }) => kind },
      { name: "state", value: standingOf },
      { name: "age", value: ({ startedAt }) => formatAge(startedAt, nowMs) },
      { name: "took", value: tookOf },
      { name: "by", value: ({ requestedBy, requestedByEmail }) => requestedByEmail ?? requestedBy },
      { name: "reason", value: ({ reason }) => reason },
      { name: "outcome", value: ({ outcome }) => outcome },
    ],
    drains,
  );
}

/** A drain by itself, with each of its pods. */
export function renderDrain(drain: DrainDetail, nowMs: number): string {
  const { pods, downtimeMs: away } = drain;
  const leftMs = Date.parse(drain.deadlineAt) - nowMs;
  const fields = renderFields({
    [drain.kind]: drain.node,
    state: isUnread(drain) ? standingOf(drain) : `${standingOf(drain)}, ${drain.percent} %`,
    outcome: drain.outcome ?? undefined,
    "waits for": drain.waitsFor ?? undefined,
    pods: isUnread(drain) ? undefined : countsOf(drain),
    reason: drain.reason,
    by: drain.requestedByEmail ?? drain.requestedBy,
    begun: `${drain.startedAt} (${formatAge(drain.startedAt, nowMs)} ago)`,
    took: tookOf(drain) ?? undefined,
    deadline:
      drain.finishedAt !== null
        ? undefined
        : `${drain.deadlineAt} (${leftMs > 0 ? `in ${formatDuration(leftMs)}` : "over"})`,
    "pods were away":
      away === null
        ? undefined
        : `${formatBrief(away.p50)} half of them, ${formatBrief(away.p95)} nearly all, ${formatBrief(away.max)} at most`,
    "come home": drain.returnHome ? (drain.returnedAt ?? "when the host is open again") : undefined,
  });
  if (pods.length === 0) return fields;
  const notHome = pods.filter(isNotHome).map(progressOf);
  return [fields, tableOf(pods), ...(notHome.length === 0 ? [] : [notHome.join("\n")])].join("\n\n");
}

function tableOf(pods: readonly DrainPod[]): string {
  return renderTable<DrainPod>(
    [
      { name: "vmid", value: ({ vmid }) => vmid },
      { name: "pod", value: ({ name }) => name },
      { name: "state", value: ({ state }) => stateWord(state) },
      { name: "to", value: ({ target }) => target },
      { name: "way", value: ({ strategy }) => strategy },
      { name: "%", value: ({ percent }) => percent },
      { name: "expected", value: ({ expectedDowntimeMs: ms }) => (ms === null ? null : formatBrief(ms)) },
      { name: "away", value: ({ downtimeMs: ms }) => (ms === null ? null : formatBrief(ms)) },
      {
        name: "backup",
        value: ({ archiveAgeSeconds: age }) => (age === null ? null : `${formatDuration(age * 1_000)} old`),
      },
      { name: "blocker", value: ({ blocker }) => blocker?.code },
    ],
    pods,
  );
}

/** How far a drain is, then each pod that does not just wait its turn: those on their way first, then what keeps others. */
export function drainLines(drain: DrainDetail): string[] {
  const { node, percent, pods, waitsFor } = drain;
  if (isUnread(drain)) return [`${node} ${standingOf(drain)}`];
  const bar = `${progressBar(percent, barWidth)} ${String(percent).padStart(3)} %`;
  const told = pods.filter(({ state, blocker }) => blocker !== null || (state !== "pending" && state !== "claimed"));
  const rank = ({ state }: DrainPod): number => (state === "moving" ? 0 : hasLeft(state) ? 2 : 1);
  return [
    `${node} ${bar} ${standingOf(drain)}: ${countsOf(drain)}`,
    ...(waitsFor === null ? [] : [`  waits: ${waitsFor}`]),
    ...told.toSorted((a, b) => rank(a) - rank(b)).map((pod) => `  ${progressOf(pod)}`),
  ];
}

function progressOf(pod: DrainPod): string {
  const { state, target, step, percent, downtimeMs, blocker } = pod;
  const to = target === null ? "" : ` to ${target}`;
  const away = downtimeMs === null ? "" : `, was away ${formatBrief(downtimeMs)}`;
  if (state === "moving") return `${nameOf(pod)}${to}: ${percent} % ${step ?? "waits"}`;
  if (!hasLeft(state))
    return `${nameOf(pod)}: ${stateWord(state)}${away}${blocker === null ? "" : `, ${blocker.message}`}`;
  const why = blocker?.message ?? "it could not come home";
  if (state === "stayed")
    return `${nameOf(pod)}: stayed away${target === null ? "" : ` on ${target}`}${away}, because ${why}`;
  return `${nameOf(pod)}: ${state}${to}${away}${isNotHome(pod) ? `, not home yet: ${why}` : ""}`;
}

/** It was to come home and has not been able to so far, or for good. */
function isNotHome({ state, blocker }: DrainPod): boolean {
  return state === "stayed" || (state === "moved" && blocker !== null);
}

/** What was begun and how to watch it. */
export function describeBegun({ node, kind }: DrainDetail): string {
  const what = kind === "drain" ? "is being emptied" : "is given up, and its pods are brought back elsewhere";
  return `${node} ${what}; watch it with: cloudpods nodes drains ${node} --wait`;
}

/** What a cancelled drain still does. */
export function describeCancelling({ node }: DrainDetail): string {
  return `${node}: no more pods move, what has begun is carried to its end; the host stays cordoned.`;
}

/** @throws TaskFailedError with the reasons by pod, unless the drain ended in one of the states */
export function requireEnd(drain: DrainDetail, wanted: readonly string[]): void {
  if (wanted.includes(drain.state)) return;
  const reasons = drain.pods.flatMap((pod) => (hasLeft(pod.state) ? [] : [`  ${nameOf(pod)}: ${whyStays(pod)}`]));
  const outcome = drain.outcome === null ? "" : `: ${drain.outcome}`;
  throw new TaskFailedError(
    [`The ${drain.kind} of ${drain.node} ended ${drain.state}${outcome}`, ...reasons].join("\n"),
  );
}

function whyStays({ state, blocker }: DrainPod): string {
  if (blocker !== null) return `${blocker.message} (${blocker.code})`;
  return state === "left" ? "It was left where it is." : `It is ${state}.`;
}

/** Who has left a host is not who was left there. */
function stateWord(state: string): string {
  return state === "left" ? "left behind" : state;
}

/** Also of states that a newer control plane may have: nothing is known to have left then. */
function hasLeft(state: string): boolean {
  const known: Readonly<Record<string, boolean | undefined>> = drainPodHasLeft;
  return known[state] === true;
}

/** Nobody has looked yet which pods the host has. */
function isUnread({ state, pods }: DrainDetail): boolean {
  return state === "planning" && pods.length === 0;
}

function standingOf({ state, cancelRequestedAt, finishedAt }: Drain): string {
  return cancelRequestedAt !== null && finishedAt === null ? `${state}, being cancelled` : state;
}

function tookOf({ startedAt, finishedAt }: Drain): string | null {
  return finishedAt === null ? null : formatDuration(Date.parse(finishedAt) - Date.parse(startedAt));
}

function countsOf({ counts, pods }: DrainDetail): string {
  const told = drainPodStates.flatMap((state) =>
    (counts[state] ?? 0) === 0 ? [] : [`${counts[state]} ${stateWord(state)}`],
  );
  return pods.length === 0 ? "no pods" : told.join(", ");
}
