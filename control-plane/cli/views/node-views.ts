import type { AnswerOf } from "../api/endpoints.ts";
import { countOf, formatAge, formatMb } from "../terminal/format.ts";
import { renderFields, renderTable } from "../terminal/table.ts";
import { labelsOf } from "./pod-views.ts";

type Node = AnswerOf<"listNodes">["data"][number];

/** A table of hosts. */
export function renderNodes(nodes: readonly Node[], nowMs: number): string {
  return renderTable<Node>(
    [
      { name: "name", value: ({ name }) => name },
      { name: "role", value: ({ role }) => role },
      { name: "region", value: ({ region }) => region },
      { name: "state", value: standingOf },
      { name: "since", value: ({ stateSince }) => formatAge(stateSince, nowMs) },
      { name: "pods", value: ({ podCount }) => podCount },
      { name: "cpu", value: ({ cpu }) => `${cpu.allocated}/${cpu.allocatable}` },
      { name: "memory", value: ({ memoryMb }) => `${formatMb(memoryMb.allocated)}/${formatMb(memoryMb.allocatable)}` },
      { name: "disk", value: diskOf },
      { name: "agent", value: ({ agentVersion }) => agentVersion },
      { name: "conditions", value: ({ conditions }) => conditions.map(({ kind }) => kind).join(", ") },
    ],
    nodes,
  );
}

/** What became of a host that was removed, and of what only it had. */
export function renderRemoval(name: string, { backupsGone }: AnswerOf<"removeNode">): string {
  const out = `${name} is no longer in the fleet.`;
  if (backupsGone === 0) return out;
  return `${out} Gone with it: ${countOf(backupsGone, "backup")} that no other host sees; whose they were is told.`;
}

/** A host by itself, with its storages and pods. */
export function renderNode(node: AnswerOf<"showNode">, nowMs: number): string {
  const fields = renderFields({
    node: node.name,
    id: node.id,
    role: node.role,
    region: node.region,
    cluster: node.cluster ?? undefined,
    state: `${node.state} since ${node.stateSince} (${formatAge(node.stateSince, nowMs)})`,
    cordoned: node.schedulable || node.state === "removed" ? undefined : cordonOf(node, nowMs),
    note: node.maintenanceNote ?? undefined,
    labels: labelsOf(node.labels),
    cpu: `${node.cpu.allocated} of ${countOf(node.cpu.allocatable, "core")} promised, ${node.cpu.free} free`,
    memory: `${formatMb(node.memoryMb.allocated)} of ${formatMb(node.memoryMb.allocatable)} promised, ${formatMb(node.memoryMb.free)} free`,
    backups: node.backupStorage === null ? undefined : `go to ${node.backupStorage}`,
    "last heartbeat": node.lastHeartbeatAt === null ? null : `${formatAge(node.lastHeartbeatAt, nowMs)} ago`,
    "clock skew": node.clockSkewMs === null ? null : `${node.clockSkewMs} ms`,
    "samples waiting": node.spoolDepth,
    versions: `agent ${node.agentVersion ?? "-"}, Proxmox VE ${node.pveVersion ?? "-"}`,
    certificate: node.certificateExpiresAt === null ? null : `expires ${node.certificateExpiresAt}`,
    ...Object.fromEntries(node.conditions.map(({ kind, message, since }) => [kind, `${message}, since ${since}`])),
  });
  const storages = renderTable(
    [
      { name: "storage", value: ({ name }) => name },
      { name: "type", value: ({ type }) => type },
      { name: "for", value: usesOf },
      { name: "available", value: ({ available }) => (available ? "yes" : "no") },
      { name: "free", value: ({ freeGb, allocatableGb }) => `${freeGb} of ${allocatableGb} GB` },
    ],
    node.storages,
  );
  const pods = renderTable(
    [
      { name: "vmid", value: ({ vmid }) => vmid },
      { name: "pod", value: ({ name }) => name },
      { name: "status", value: ({ status }) => status },
      { name: "power", value: ({ observedPower }) => observedPower },
      { name: "tenant", value: ({ tenantId }) => tenantId },
    ],
    node.pods,
  );
  return `${fields}\n\n${storages}\n\n${node.pods.length === 0 ? countOf(0, "pod") : pods}`;
}

/** What a host that is no more cordoned does now; one that is not online takes nothing all the same. */
export function describeOpened({ name, state }: Pick<Node, "name" | "state">): string {
  return state === "online"
    ? `${name} takes new pods.`
    : `${name} is cordoned no more; it takes new pods once it is online, and is ${state}.`;
}

/** The token and what to do with it. */
export function describeJoinToken(
  { name, role, token, expiresAt }: AnswerOf<"makeJoinToken">,
  serverUrl: string,
): string {
  return [
    `Run on ${name}, before ${expiresAt}; the token is shown only here and good for one host:`,
    `  cloudpods-agent join --server ${serverUrl} --token ${token}`,
    ...(role === "hypervisor"
      ? []
      : [`Before the agent runs there, say CLOUDPODS_AGENT_ROLE=${role} in /etc/default/cloudpods-agent.`]),
  ].join("\n");
}

function cordonOf(
  { cordonReason, cordonedAt, cordonedBy, cordonedByEmail, cordonedUntil }: Node,
  nowMs: number,
): string {
  const since = cordonedAt === null ? "" : `, since ${cordonedAt} (${formatAge(cordonedAt, nowMs)})`;
  const by = cordonedBy === null ? "" : `, by ${cordonedByEmail ?? cordonedBy}`;
  const until = cordonedUntil === null ? "" : `, until ${cordonedUntil}`;
  return `${cordonReason ?? "yes"}${since}${by}${until}`;
}

function usesOf({ holdsRootDisks, holdsBackups }: Node["storages"][number]): string | null {
  const uses = [...(holdsRootDisks ? ["disks"] : []), ...(holdsBackups ? ["backups"] : [])];
  return uses.length === 0 ? null : uses.join(", ");
}

/** Of the storages for root disks; shared ones count at each of their hosts. */
function diskOf({ storages }: Node): string | null {
  const forDisks = storages.filter(({ holdsRootDisks }) => holdsRootDisks);
  if (forDisks.length === 0) return null;
  const sum = (value: (storage: Node["storages"][number]) => number): number =>
    forDisks.reduce((total, storage) => total + value(storage), 0);
  return `${sum(({ allocatedGb }) => allocatedGb)}/${sum(({ allocatableGb }) => allocatableGb)} GB`;
}

/** Who is no more in the fleet is closed for good: that is no cordon. */
function standingOf({ state, schedulable }: Node): string {
  return schedulable || state === "removed" ? state : `${state}, cordoned`;
}
