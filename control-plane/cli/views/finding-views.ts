import type { AnswerOf } from "../api/endpoints.ts";
import { formatAge } from "../terminal/format.ts";
import { renderTable } from "../terminal/table.ts";
import { describeEvidence } from "./evidence-view.ts";

type Finding = AnswerOf<"listFindings">["data"][number];

/** A table of findings. */
export function renderFindings(findings: readonly Finding[], nowMs: number): string {
  return renderTable<Finding>(
    [
      { name: "id", value: ({ id }) => id },
      { name: "node", value: ({ node }) => node },
      { name: "vmid", value: ({ vmid }) => vmid },
      { name: "kind", value: ({ kind }) => kind },
      { name: "what", value: ({ subject }) => subject },
      { name: "for", value: (finding) => formatAge(finding.firstSeenAt, endOf(finding) ?? nowMs) },
      { name: "seen", value: ({ sightings }) => sightings },
      { name: "done", value: doneOf },
      { name: "offered", value: (finding) => (endOf(finding) === undefined ? finding.offered.join(", ") : null) },
      { name: "evidence", value: ({ evidence }) => describeEvidence(evidence) },
    ],
    findings,
  );
}

/** When it was over; one that was dismissed still is so. */
function endOf({ state, resolvedAt }: Finding): number | undefined {
  return state === "resolved" && resolvedAt !== null ? Date.parse(resolvedAt) : undefined;
}

/** What follows from a decision. */
export function describeDecision({ kind, vmid, node, taskId }: Finding, action: string): string {
  const what = `${kind} of ${vmid} on ${node}`;
  if (action === "dismiss") return `${what}: left as it is until it changes.`;
  const watch = taskId === null ? "" : `; watch it with: cloudpods tasks watch ${taskId}`;
  return `${what}: ${action} begun${watch}`;
}

function doneOf({ action, actionState, actionError }: Finding): string | null {
  if (action === null) return null;
  return `${action}${actionState === null ? "" : ` ${actionState}`}${actionError === null ? "" : ` (${actionError})`}`;
}
