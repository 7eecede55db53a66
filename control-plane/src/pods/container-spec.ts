import type { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Pod } from "./pod.ts";

/** What an adopted container keeps as it was found. */
export interface AdoptedNetwork {
  /** Address with prefix length, or "dhcp". */
  readonly ip: string;
  readonly gateway: string;
  readonly firewall: boolean;
  readonly vlanTag: number;
  readonly nameserver: string;
  readonly searchDomain: string;
}

const ourNetwork: AdoptedNetwork = {
  ip: "dhcp",
  gateway: "",
  firewall: true,
  vlanTag: 0,
  nameserver: "",
  searchDomain: "",
};

/**
 * What the host shall make of a pod. Once it was its owner's it names nothing to make it from: a host that has lost the
 * container says so instead of putting an empty one in its place.
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
    | "adoptedNetwork"
    | "activatedAt"
  >,
): ContainerSpec {
  if (pod.storage === null || pod.bridge === null) throw new Error(`pod ${pod.id} has no place`);
  const { ip, gateway, firewall, vlanTag, nameserver, searchDomain } = pod.adoptedNetwork ?? ourNetwork;
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
      ip,
      gateway,
      rateLimitKibPerSecond: pod.rateLimitKibPerSecond,
      firewall,
      vlanTag,
      // An adopted container may carry addresses that we do not know of.
      ipFilter: pod.adoptedNetwork === null,
    },
    source: pod.template === null || pod.activatedAt !== null ? undefined : sourceOf(pod.template),
    unprivileged: true,
    nesting: pod.nesting,
    sshAuthorizedKeys: [...pod.sshKeys],
    nameserver,
    searchDomain,
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
