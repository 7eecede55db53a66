import type { AnswerOf } from "../api/endpoints.ts";
import { placementHosts } from "../api/shapes.ts";
import { countOf, formatAge, formatBrief, formatMb } from "../terminal/format.ts";
import { renderTable } from "../terminal/table.ts";

type Placement = AnswerOf<"showPlacement">;
type Verdict = AnswerOf<"simulatePlacement">;

/** Why a pod is where it is, in sentences; for operators with each host. */
export function explainPlacement(name: string, placement: Placement): string {
  const { node, region, storage, summary, history } = placement;
  const here =
    node === null
      ? `${name} is on no host.`
      : `${name} is on ${node} (region ${region}${storage === null ? "" : `, storage ${storage}`}).`;
  const current = history.find(({ to }) => to === null);
  const earlier = history
    .filter(({ to }) => to !== null)
    .map((line) => `  ${line.node ?? "a removed host"}, given up ${line.to}${awayFor(line)}`);
  const hosts = placementHosts.safeParse(placement.hosts ?? { candidates: [], rejected: [] });
  return [
    here,
    ...(current === undefined ? [] : [`Its place there is of ${current.from}${awayFor(current)}.`]),
    ...(summary === null ? [] : [`When it was placed, ${fitOf(summary)}.`]),
    ...(hosts.success ? hostsOf(hosts.data, node) : []),
    ...(earlier.length === 0 ? [] : ["Before:", ...earlier]),
  ].join("\n");
}

/** What it cost the pod to come to a host from another one. */
function awayFor({ downtimeMs }: Placement["history"][number]): string {
  return downtimeMs === null ? "" : `; it was away ${formatBrief(downtimeMs)} to come there`;
}

/** Where a pod of a plan would go, or why nowhere, in sentences. */
export function explainFit(planCode: string, verdict: Verdict): string {
  const { chosen, summary, nodes } = verdict;
  const where =
    chosen !== null
      ? `${planCode} would be placed on ${chosen.node} (storage ${chosen.storage}); ${fitOf(summary)}.`
      : nodes === 0
        ? `${planCode} fits nowhere: there are no hosts.`
        : `${planCode} fits nowhere now: ${fitOf(summary)}.`;
  return [where, ...hostsOf(verdict, chosen?.node ?? null)].join("\n");
}

/** How many more pods fit, and which orders found no place. */
export function renderHeadroom({ regions, failures }: AnswerOf<"showHeadroom">, nowMs: number): string {
  const rows = regions.flatMap(({ region, nodes, plans }) => plans.map((plan) => ({ region, nodes, ...plan })));
  const table = renderTable(
    [
      { name: "region", value: ({ region }) => region },
      { name: "open hosts", value: ({ nodes }) => nodes },
      { name: "plan", value: ({ planCode }) => planCode },
      { name: "more pods", value: ({ pods }) => pods },
    ],
    rows,
  );
  const lost = failures.map(
    ({ orders, planCode, cores, memoryMb, diskGb, region, lastAt, summary }) =>
      `  ${countOf(orders, "order")} of ${planCode ?? `${countOf(cores, "core")}, ${formatMb(memoryMb)}, ${diskGb} GB`} in ` +
      `${region ?? "any region"}, last ${formatAge(lastAt, nowMs)} ago: ${summary}`,
  );
  return lost.length === 0 ? table : [table, "", "Without a place in the last seven days:", ...lost].join("\n");
}

/** `2 of 3 nodes: 1 cordoned` as words. */
function fitOf(summary: string): string {
  const [, fitting, rest = ""] = /^(\d+ of \d+ nodes?)(?:: (.*))?$/.exec(summary) ?? [];
  if (fitting === undefined) return summary;
  return `${fitting} could take it${rest === "" ? "" : ` (${rest})`}`;
}

interface Hosts {
  readonly candidates: readonly { readonly node: string; readonly points: number; readonly scores: Scores }[];
  readonly rejected: readonly { readonly node: string; readonly reason: string }[];
}

type Scores = Readonly<Record<string, number>>;

function hostsOf({ candidates, rejected }: Hosts, chosen: string | null): string[] {
  const fitting = candidates.map(
    ({ node, points, scores }) =>
      `  ${node}${node === chosen ? " (chosen)" : ""}: ${points} points, ${scoresOf(scores)}`,
  );
  const refused = [...Map.groupBy(rejected, ({ reason }) => reason)].map(
    ([reason, of]) => `  ${of.map(({ node }) => node).join(", ")}: ${reason}`,
  );
  return [
    ...(fitting.length === 0 ? [] : ["Hosts that fit, best first:", ...fitting]),
    ...(refused.length === 0 ? [] : ["Hosts that do not:", ...refused]),
  ];
}

function scoresOf(scores: Scores): string {
  return Object.entries(scores)
    .map(([name, points]) => `${name} ${points}`)
    .join(", ");
}
