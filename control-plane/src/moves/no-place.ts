import type { FilterName } from "../scheduling/filters.ts";
import type { PlacementVerdict } from "../scheduling/verdict.ts";
import type { Blocker } from "./plan-moves.ts";

/** What more room would help against. */
const ofRoom = new Set<FilterName>(["cpu", "memory", "disk"]);
const namedMax = 8;

/**
 * Why none of the hosts that come into question takes a pod, host by host; those that never could are not counted.
 * `NO_CAPACITY`: some would, if they had room. `NO_HOST`: room is not what is missing.
 */
export function noPlace({ rejected, reasons }: Pick<PlacementVerdict, "rejected" | "reasons">): Blocker {
  const told = rejected.filter(({ filter }) => filter !== "target");
  const all = reasons.filter(({ filter }) => filter !== "target").reduce((sum, { nodes }) => sum + nodes, 0);
  const named = told.slice(0, namedMax).map(({ node, reason }) => `${node}: ${reason}`);
  const more = all > named.length ? [`${all - named.length} more`] : [];
  const why = all === 0 ? "there is none" : [...named, ...more].join("; ");
  return reasons.some(({ filter }) => ofRoom.has(filter))
    ? { code: "NO_CAPACITY", message: `No host that could take it has room (${why}).` }
    : { code: "NO_HOST", message: `No host could take it (${why}).` };
}

/**
 * Why nothing leads from a pod's host to another one, or to the one that was named.
 * @param named undefined: any would have done
 */
export function noWay(named?: { readonly node: string; readonly isItsOwn: boolean }): Blocker {
  return { code: "NO_WAY", message: whyNoWay(named) };
}

/** Why nothing leads anywhere where it was not tried yet. */
export function noOtherWay(): Blocker {
  return { code: "NO_WAY", message: "No host is left for it: on each that it can get to its move has failed." };
}

function whyNoWay(named: Parameters<typeof noWay>[0]): string {
  if (named === undefined)
    return "No other host is in the same Proxmox cluster or sees a storage for backups that this one sees too.";
  if (named.isItsOwn) return `The pod is on ${named.node} already.`;
  return `${named.node} cannot take it: it is neither in the same Proxmox cluster nor sees a storage for backups that the pod's host sees too.`;
}
