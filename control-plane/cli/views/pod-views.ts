import type { AnswerOf } from "../api/endpoints.ts";
import { countOf, formatAge, formatDuration, formatMb } from "../terminal/format.ts";
import { renderFields, renderTable, type Column } from "../terminal/table.ts";

type Pod = AnswerOf<"showPod">;
type Health = AnswerOf<"showHealth">;

/** A table of pods; of all tenants with the tenant, by its slug where that is known. */
export function renderPods(
  pods: readonly Pod[],
  slugs: ReadonlyMap<string, string> | undefined,
  nowMs: number,
): string {
  const columns: Column<Pod>[] = [
    { name: "vmid", value: ({ vmid }) => vmid },
    { name: "hostname", value: ({ hostname }) => hostname },
    { name: "status", value: ({ status }) => status },
    {
      name: "power",
      value: ({ status, power, desiredPower }) =>
        status === "deleted" ? null : power === desiredPower ? power : `${power} → ${desiredPower}`,
    },
    { name: "plan", value: planOf },
    { name: "cores", value: ({ cores }) => cores },
    { name: "memory", value: ({ memoryMb }) => formatMb(memoryMb) },
    { name: "disk", value: ({ diskGb }) => `${diskGb} GB` },
    { name: "ip", value: ({ ip }) => ip },
    { name: "node", value: ({ node }) => node },
    { name: "age", value: ({ orderedAt }) => formatAge(orderedAt, nowMs) },
    ...(slugs === undefined ? [] : [{ name: "tenant", value: ({ tenantId }: Pod) => slugs.get(tenantId) ?? tenantId }]),
    // A pod that is gone answers to nothing else, and its backups may be what is wanted.
    ...(pods.some(({ status }) => status === "deleted") ? [{ name: "id", value: ({ id }: Pod) => id }] : []),
  ];
  return renderTable(columns, pods);
}

/** A pod by itself, with its health where that is known. */
export function renderPod(pod: Pod, nowMs: number, health?: Health): string {
  return renderFields({
    pod: `${pod.hostname} (${pod.vmid})`,
    id: pod.id,
    name: pod.name,
    tenant: pod.tenantId,
    status: pod.status,
    power: pod.power === pod.desiredPower ? pod.power : `${pod.power}, wanted ${pod.desiredPower}`,
    "on hold": pod.holds.length === 0 ? undefined : pod.holds.map(holdOf).join("; "),
    plan: planOf(pod),
    size: `${countOf(pod.cores, "core")}, ${formatMb(pod.memoryMb)} memory, ${formatMb(pod.swapMb)} swap, ${pod.diskGb} GB disk`,
    address: pod.ip === null ? null : `${pod.ip} (${pod.mac})`,
    domain: pod.domain ?? undefined,
    node: pod.node === null ? null : `${pod.node}, region ${pod.region}`,
    labels: labelsOf(pod.labels),
    ordered: `${pod.orderedAt} (${formatAge(pod.orderedAt, nowMs)} ago)`,
    active: pod.activatedAt === null ? undefined : `since ${pod.activatedAt}`,
    "last error": pod.lastError === null ? undefined : `${pod.lastError.message} (${pod.lastError.code})`,
    ...(health === undefined ? {} : healthFields(health)),
  });
}

/** Where a pod stands after work on it, in a line. */
export function standingOf({ id, status, power, node, ip }: Pod): string {
  // Its name leads to it no more.
  if (status === "deleted") return `deleted; what backups are left of it: cloudpods backups ls ${id}`;
  const where = node === null ? "" : ` on ${node}`;
  const address = ip === null ? "" : `, ${ip}`;
  return `${status}${status === "active" ? `, ${power}` : ""}${where}${address}`;
}

function planOf({ planCode }: Pod): string {
  return planCode ?? "metered";
}

function holdOf({ kind, effect, reason, since }: Pod["holds"][number]): string {
  return `${effect} by ${kind} since ${since}${reason === null ? "" : `: ${reason}`}`;
}

/** What the host saw last, in a line; a second one for each condition. */
export function describeHealth(health: Health): string {
  return renderFields(healthFields(health));
}

function healthFields({ healthy, observationAgeSeconds, conditions }: Health): Record<string, string> {
  const seen =
    observationAgeSeconds === null
      ? "never seen by a host"
      : `seen ${formatDuration(observationAgeSeconds * 1_000)} ago`;
  return {
    health: `${healthy ? "healthy" : "not healthy"}, ${seen}`,
    ...Object.fromEntries(conditions.map(({ kind, message }) => [kind, message])),
  };
}

/** Labels as they are given. */
export function labelsOf(labels: Readonly<Record<string, string>>): string | undefined {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  return pairs.length === 0 ? undefined : pairs.join(" ");
}
