import { storageFor, type NodeSnapshot } from "./fleet-snapshot.ts";
import type { Labels, PlacementRequest } from "./placement-request.ts";

/** Why a node cannot take a pod. */
export interface Refusal {
  /** For people, e.g. `cordoned` or `short of memory`. Equal reasons are counted together. */
  readonly reason: string;
  /** How much is missing, for what can be short. */
  readonly shortBy?: { readonly amount: number; readonly unit: "" | "MB" | "GB" };
  /** For operators, e.g. why the node is cordoned; not counted and never in a summary. */
  readonly detail?: string;
}

type Filter = (node: NodeSnapshot, request: PlacementRequest) => Refusal | undefined;

/**
 * What a node must be, by name, in the order in which it is asked: the first refusal is the one that is
 * told. To add a rule, add a line; its name appears in verdicts, simulations and statistics by itself.
 */
export const filters = {
  target: (node, { only, named }) =>
    refuseIf(named !== undefined && node.id !== named, "not the host that was named") ??
    refuseIf(only !== undefined && !only.includes(node.id), "not reachable from there"),
  role: (node) => (node.role === "hypervisor" ? undefined : { reason: "not for containers" }),
  region: (node, { region }) =>
    region === undefined || node.region === region ? undefined : { reason: "in another region" },
  online: (node) => (node.state === "online" ? undefined : { reason: node.state }),
  quorum: (node) => (node.quorate === false ? { reason: "without quorum" } : undefined),
  schedulable: ({ schedulable, cordonReason }) =>
    schedulable ? undefined : { reason: "cordoned", ...(cordonReason === null ? {} : { detail: cordonReason }) },
  capability: (node, { capabilities = [] }) => without("capability", capabilities, node.capabilities),
  template: (node, { template }) =>
    template === undefined
      ? refuseIf(node.defaultTemplate === null, "without a template")
      : without("template", template === null ? [] : [template], node.templates),
  labels: (node, { nodeLabels = {} }) => refuseIf(!hasLabels(node.labels, nodeLabels), "without the labels"),
  storage: (node, request) => refuseIf(storageFor(node, request.storage) === undefined, "without the storage"),
  cpu: (node, { cores }) => short("CPU cores", "", cores, node.cpuAllocatable - node.cpuAllocated),
  memory: (node, { memoryMb }) => short("memory", "MB", memoryMb, node.memoryAllocatableMb - node.memoryAllocatedMb),
  disk: (node, { diskGb, storage }) => {
    const found = storageFor(node, storage);
    return found === undefined ? undefined : short("disk", "GB", diskGb, found.allocatableGb - found.allocatedGb);
  },
} as const satisfies Record<string, Filter>;

/** The one rule that looks at where the tenant's other pods are; asked last, because it differs by tenant. */
export const antiAffinity = { name: "anti-affinity", refusal: { reason: "beside a pod to keep away from" } } as const;

/** Name of a filter. */
export type FilterName = keyof typeof filters | typeof antiAffinity.name;

const list = Object.entries(filters) as readonly (readonly [keyof typeof filters, Filter])[]; // the keys are the names

/** The first filter that refuses the node, or undefined when the node can take the pod. */
export function firstRefusal(
  node: NodeSnapshot,
  request: PlacementRequest,
): { readonly filter: FilterName; readonly refusal: Refusal } | undefined {
  for (const [filter, refuses] of list) {
    const refusal = refuses(node, request);
    if (refusal !== undefined) return { filter, refusal };
  }
  return undefined;
}

function refuseIf(condition: boolean, reason: string): Refusal | undefined {
  return condition ? { reason } : undefined;
}

function without(kind: string, wanted: readonly string[], offered: readonly string[]): Refusal | undefined {
  const missing = wanted.find((name) => !offered.includes(name));
  return missing === undefined ? undefined : { reason: `without the ${kind} ${missing}` };
}

function hasLabels(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}

/** A refusal where less is free than is asked for. */
export function short(what: string, unit: "" | "MB" | "GB", asked: number, free: number): Refusal | undefined {
  return asked <= free
    ? undefined
    : { reason: `short of ${what}`, shortBy: { amount: asked - Math.max(free, 0), unit } };
}
