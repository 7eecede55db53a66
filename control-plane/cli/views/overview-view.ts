import type { AnswerOf } from "../api/endpoints.ts";
import { countOf, formatAge, formatDuration, formatMb } from "../terminal/format.ts";
import { renderFields, renderTable } from "../terminal/table.ts";

type Overview = AnswerOf<"showOverview">;

/** The platform at a glance: figures, and by name only what is not well. */
export function renderOverview(overview: Overview, nowMs: number): string {
  const sections = [
    `Platform at ${overview.at}`,
    renderFields(standing(overview, nowMs)),
    ...(overview.capacity.length === 0
      ? []
      : [
          titled("Capacity (promised of what can be promised)", renderCapacity(overview.capacity)),
          titled("Room for more pods", renderHeadroom(overview.capacity)),
        ]),
    ...hostsNotWell(overview, nowMs),
    ...recentFailures(overview, nowMs),
  ];
  return sections.join("\n\n");
}

function standing(overview: Overview, nowMs: number): Record<string, string | undefined> {
  const { queues, metering, security, pods, orphans, backups, findings, drains, controlPlane } = overview;
  const dead = queues.deadLetters.map(({ kind, reason, letters }) => `${letters} ${kind} (${reason})`);
  return {
    hosts: overview.coreNodes.length === 0 ? "none yet" : undefined,
    ...Object.fromEntries(
      overview.coreNodes.map(({ role, total, states }) => [
        `hosts, ${role}`,
        `${total}: ${listed(states, ({ state, nodes }) => `${nodes} ${state}`)}`,
      ]),
    ),
    pods: `${listed(pods.byStatus, ({ status, pods: of }) => `${of} ${status}`)}; ${pods.onSilentHosts} on silent hosts, ${pods.powerDrift} in another power state than wanted`,
    "last 24 h": provisioned(overview.provisioning),
    tasks: listed(
      queues.tasks,
      ({ type, state, tasks, oldestSeconds }) => `${tasks} ${type} ${state} (oldest ${ago(oldestSeconds)})`,
    ),
    commands: listed(
      queues.commands,
      ({ state, commands, oldestSeconds }) => `${commands} ${state} (oldest ${ago(oldestSeconds)})`,
    ),
    notifications: listed(
      queues.notifications,
      ({ channel, waiting, oldestSeconds }) => `${waiting} ${channel} (oldest ${ago(oldestSeconds)})`,
    ),
    "dead letters": dead.length === 0 ? "none" : dead.join(", "),
    metering: measured(metering),
    "metering proof": proven(metering.lastVerification, nowMs),
    orphans: `${countOf(orphans.unmanaged, "unmanaged container")}, ${orphans.misplaced} misplaced`,
    findings: `${listed(findings.byKind, ({ kind, findings: of }) => `${of} ${kind}`)}${findings.held ? "; nothing is done about them now" : ""}`,
    drains: drained(drains),
    backups: backedUp(backups, nowMs),
    users: `${security.users.active} active (${countOf(security.users.administrators, "administrator")}, ${countOf(security.users.operators, "operator")}), ${countOf(security.users.liveSessions, "session")}`,
    "sign-in": `${security.signIns.failedInLastHour} failed in the last hour; blocked: ${countOf(security.signIns.blockedAccounts, "account")}, ${countOf(security.signIns.blockedAddresses, "address", "addresses")}`,
    "API tokens": `${security.apiTokens.live} live, ${security.apiTokens.withoutExpiry} without expiry`,
    certificates: certified(security.certificates),
    "certificate authority":
      security.certificates.authorityExpiresAt === null
        ? "none yet"
        : `expires ${security.certificates.authorityExpiresAt}`,
    "audit log": audited(security.audit, nowMs),
    replicas: listed(
      controlPlane.replicas,
      ({ hostname, roles, alive }) => `${hostname} (${roles.join(", ")}${alive ? "" : "; not seen lately"})`,
    ),
    database: listed(
      Object.entries(controlPlane.database),
      ([name, value]) => `${name} ${value === "" ? "none" : value}`,
    ),
    orders: controlPlane.holdsOrders ? "held: the database was restored and not all hosts have reported" : undefined,
  };
}

function drained({ running, incomplete }: Overview["drains"]): string {
  const under = running.map(
    ({ kind, node, done, pods, moving, stuck, deadlineAt }) =>
      `${kind} of ${node}: ${done} of ${countOf(pods, "pod")} away, ${moving} moving, ${stuck} stuck, until ${deadlineAt}`,
  );
  const ended = incomplete.map(
    ({ kind, node, done, pods, outcome }) =>
      `${kind} of ${node} INCOMPLETE, ${done} of ${countOf(pods, "pod")} away${outcome === null ? "" : ` (${outcome})`}`,
  );
  return listed([...under, ...ended], (line) => line);
}

/** A proof that failed stands out: bills rest on it. */
function proven(last: Overview["metering"]["lastVerification"], nowMs: number): string {
  if (last === null) return "none yet";
  const found =
    last.findings === 0
      ? "all agrees"
      : `FAILED, ${countOf(last.findings, "finding")} (cloudpods metering verify names them)`;
  return `${last.yearMonth}, ${formatAge(last.verifiedAt, nowMs)} ago: ${found}`;
}

function backedUp(
  { running, succeeded, failed, lastSuccessAt, due, oldestDueAt, damaged }: Overview["backups"],
  nowMs: number,
): string {
  const last = lastSuccessAt === null ? "none yet" : `last ${lastSuccessAt}`;
  const wrong = damaged === 0 ? "" : `; ${damaged} DAMAGED`;
  return `${succeeded} in 24 h, ${failed} failed, ${running} running, ${due} due${oldestDueAt === null ? "" : ` (oldest ${formatAge(oldestDueAt, nowMs)})`}; ${last}${wrong}`;
}

function provisioned({
  succeeded,
  failed,
  cancelled,
  successRate,
  ordersWithoutPlace,
}: Overview["provisioning"]): string {
  const rate = successRate === null ? "" : ` (${(successRate * 100).toFixed(1)} % well)`;
  return `${succeeded} tasks succeeded, ${failed} failed${rate}, ${cancelled} cancelled; ${countOf(ordersWithoutPlace, "order")} without a place`;
}

function measured({
  hosts,
  neverReported,
  lag,
  behind,
  spools,
  lostBatches,
  rolledUpTo,
  dirtyHours,
}: Overview["metering"]): string {
  const late = behind.map(({ name, lagSeconds }) => `${name} ${ago(lagSeconds)}`);
  return [
    lag === null
      ? "no samples yet"
      : `lag p50 ${ago(lag.p50Seconds)}, p95 ${ago(lag.p95Seconds)}, max ${ago(lag.maxSeconds)}`,
    ...(neverReported === 0 ? [] : [`${neverReported} of ${countOf(hosts, "host")} never reported`]),
    ...(late.length === 0 ? [] : [`behind: ${late.join(", ")}`]),
    `${countOf(spools.total, "batch", "batches")} waiting on hosts`,
    rolledUpTo === null ? "no hour is rolled up yet" : `rolled up to ${rolledUpTo}`,
    `${countOf(dirtyHours.waiting, "hour")} to roll up`,
    ...(lostBatches === 0 ? [] : [`${countOf(lostBatches, "batch", "batches")} LOST in the last 24 h`]),
  ].join("; ");
}

function certified({ expiring, revokedNodes }: Overview["security"]["certificates"]): string {
  return [
    expiring.length === 0
      ? "none expires soon"
      : `expiring: ${listed(expiring, ({ name, expiresAt }) => `${name} ${expiresAt}`)}`,
    ...(revokedNodes.length === 0 ? [] : [`revoked: ${listed(revokedNodes, ({ name }) => name)}`]),
  ].join("; ");
}

/** Old rows are proved once a day only: that new ones agree says nothing about them. */
function audited(
  { unsealedRows, lastVerifiedAt, wholeVerifiedAt, intact, fault }: Overview["security"]["audit"],
  nowMs: number,
): string {
  const proof =
    fault !== null
      ? `NOT WHAT WAS SEALED: ${fault.code} at row ${fault.seq}`
      : intact === null
        ? "not proved yet"
        : "intact";
  const whole = wholeVerifiedAt === null ? "not yet" : `${formatAge(wholeVerifiedAt, nowMs)} ago`;
  const when =
    lastVerifiedAt === null ? "" : ` (new rows proved ${formatAge(lastVerifiedAt, nowMs)} ago, all of it ${whole})`;
  return `${proof}${when}; ${countOf(unsealedRows, "row")} without a seal yet`;
}

function renderCapacity(capacity: Overview["capacity"]): string {
  return renderTable(
    [
      { name: "region", value: ({ region }) => region },
      { name: "open hosts", value: ({ hosts, hostsOpen }) => `${hostsOpen} of ${hosts}` },
      { name: "overallocated", value: ({ hostsOverallocated }) => hostsOverallocated },
      { name: "cores", value: ({ cpuCores }) => `${cpuCores.allocated}/${cpuCores.allocatable}` },
      { name: "memory", value: ({ memoryMb }) => `${formatMb(memoryMb.allocated)}/${formatMb(memoryMb.allocatable)}` },
      { name: "disk", value: ({ diskGb }) => `${diskGb.allocated}/${diskGb.allocatable} GB` },
    ],
    capacity,
  );
}

function renderHeadroom(capacity: Overview["capacity"]): string {
  return renderFields(
    Object.fromEntries(
      capacity.map(({ region, headroom }) => [region, listed(headroom, ({ planCode, pods }) => `${pods} ${planCode}`)]),
    ),
  );
}

function hostsNotWell({ coreNodes }: Overview, nowMs: number): string[] {
  const unwell = coreNodes
    .flatMap(({ role, nodes }) => nodes.map((node) => ({ role, ...node })))
    .filter(({ state, schedulable, conditions }) => state !== "online" || !schedulable || conditions.length > 0);
  if (unwell.length === 0) return [];
  const table = renderTable(
    [
      { name: "host", value: ({ name }) => name },
      { name: "role", value: ({ role }) => role },
      { name: "region", value: ({ region }) => region },
      { name: "state", value: ({ state, schedulable }) => (schedulable ? state : `${state}, cordoned`) },
      { name: "since", value: ({ stateSince }) => formatAge(stateSince, nowMs) },
      { name: "conditions", value: ({ conditions }) => conditions.join(", ") },
    ],
    unwell,
  );
  return [titled("Hosts that are not well", table)];
}

function recentFailures({ provisioning }: Overview, nowMs: number): string[] {
  if (provisioning.recentFailures.length === 0) return [];
  const table = renderTable(
    [
      { name: "task", value: ({ taskId }) => taskId },
      { name: "type", value: ({ type }) => type },
      { name: "pod", value: ({ vmid }) => vmid },
      { name: "node", value: ({ node }) => node },
      { name: "step", value: ({ step }) => step },
      { name: "error", value: ({ errorCode }) => errorCode },
      { name: "ago", value: ({ finishedAt }) => formatAge(finishedAt, nowMs) },
    ],
    provisioning.recentFailures,
  );
  return [titled("Recent failures", table)];
}

function titled(title: string, text: string): string {
  return `${title}:\n${text}`;
}

function listed<Item>(items: readonly Item[], say: (item: Item) => string): string {
  return items.length === 0 ? "none" : items.map(say).join(", ");
}

function ago(seconds: number): string {
  return formatDuration(seconds * 1_000);
}
