import type { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Pod } from "./pod.ts";

/**
 * What the host shall make of a pod.
 * @throws Error for a pod that has no place yet: nothing can be told to a host before that.
 */
export function containerSpecOf(
  pod: Pick<
    Pod,
    | "id"
    | "hostname"
    | "cores"
    | "memoryMb"
    | "swapMb"
    | "diskGb"
    | "storage"
    | "bridge"
    | "pool"
    | "template"
    | "mac"
    | "nesting"
    | "rateLimitKibPerSecond"
    | "sshKeys"
  >,
): ContainerSpec {
  if (pod.storage === null || pod.bridge === null || pod.template === null)
    throw new Error(`pod ${pod.id} has no place`);
  return {
    hostname: pod.hostname,
    cores: pod.cores,
    memoryMb: pod.memoryMb,
    swapMb: pod.swapMb,
    diskGb: pod.diskGb,
    storage: pod.storage,
    pool: pod.pool ?? "",
    network: {
      bridge: pod.bridge,
      mac: pod.mac,
      ip: "dhcp",
      gateway: "",
      rateLimitKibPerSecond: pod.rateLimitKibPerSecond,
      firewall: true,
      vlanTag: 0,
      ipFilter: true,
    },
    source: sourceOf(pod.template),
    unprivileged: true,
    nesting: pod.nesting,
    sshAuthorizedKeys: [...pod.sshKeys],
    nameserver: "",
    searchDomain: "",
  };
}

/** `ct:9000` is a template container, cloned (linked where the storage can); anything else an archive's volume id. */
function sourceOf(template: string): ContainerSpec["source"] {
  const clone = /^ct:([0-9]+)$/.exec(template);
  return clone === null
    ? { $case: "archive", value: { volumeId: template } }
    : { $case: "clone", value: { templateVmid: Number(clone[1]), full: false } };
}

/** The part of an observation that must equal the wish before a pod counts as configured. */
export interface ObservedSizes {
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** What of the wish the host does not have yet, in words; empty when it has everything. */
export function differences(pod: ObservedSizes, observed: ObservedSizes): string[] {
  const wrong: string[] = [];
  if (observed.cores !== pod.cores) wrong.push(`${observed.cores} cores instead of ${pod.cores}`);
  if (observed.memoryMb !== pod.memoryMb) wrong.push(`${observed.memoryMb} MB memory instead of ${pod.memoryMb}`);
  // A disk that a hand made larger is not smaller than ordered; that is drift to show, not a failure.
  if (observed.diskGb < pod.diskGb) wrong.push(`${observed.diskGb} GB disk instead of ${pod.diskGb}`);
  return wrong;
}
