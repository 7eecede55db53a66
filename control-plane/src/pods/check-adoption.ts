import { ContainerObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { DomainError } from "@cloudpods/shared/errors";
import { isUuid } from "@cloudpods/shared/ids";
import { readLatestInventory } from "../nodes/latest-inventory.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { AdoptedNetwork } from "./container-spec.ts";
import { hostname as hostnameField } from "./hostnames.ts";

/** A container as its host showed it last, fit to become a pod. */
export interface AdoptableContainer {
  readonly vmid: number;
  readonly configSha256: string;
  readonly hostname: string;
  readonly cores: number;
  readonly memoryMb: number;
  readonly swapMb: number;
  readonly diskGb: number;
  readonly storage: string;
  readonly storageId: string;
  readonly bridge: string;
  readonly mac: string;
  readonly ip: string;
  readonly nesting: boolean;
  readonly rateLimitKibPerSecond: number;
  readonly power: "running" | "stopped";
  readonly network: AdoptedNetwork;
  readonly region: string;
  /** Whose mark an adoption that came to nothing has left in it; empty without one. */
  readonly replacesPodId: string;
}

/**
 * The container that shall be adopted, as the newest inventory of its host has it. Its host must be there to be asked.
 * @throws DomainError `NODE_NOT_ONLINE`, `CONTAINER_NOT_FOUND`, `CONTAINER_NOT_ADOPTABLE` with the reasons
 */
export async function findAdoptable(tx: Queryable, nodeId: string, vmid: number): Promise<AdoptableContainer> {
  const [node] = await tx.query<{ region: string }>(sql`
    SELECT n.region FROM nodes n JOIN node_status s ON s.node_id = n.id
    WHERE n.id = ${nodeId} AND n.removed_at IS NULL AND s.state IN ('online', 'degraded') AND s.session_connected AND 'adopt' = ANY(s.capabilities)`);
  if (node === undefined)
    throw new DomainError(
      "wrong-state",
      "NODE_NOT_ONLINE",
      "The host is not there to be asked, or its agent is too old.",
    );
  const inventory = await readLatestInventory(tx, nodeId);
  const shown = inventory?.containers.find((container) => container.vmid === vmid);
  if (shown === undefined)
    throw new DomainError("not-found", "CONTAINER_NOT_FOUND", `The host shows no container ${vmid}.`);
  const isMarkInVain = await wasAdoptedInVain(tx, shown);
  const seen = isMarkInVain ? await readWhole(tx, nodeId, shown) : shown;
  const [storage] = await tx.query<{ id: string }>(sql`
    SELECT s.id FROM node_storages v JOIN storages s ON s.id = v.storage_id
    WHERE v.node_id = ${nodeId} AND s.name = ${seen.storage} AND s.holds_root_disks`);
  const reasons = obstacles(seen, storage !== undefined, isMarkInVain);
  const { network } = seen;
  if (reasons.length > 0 || storage === undefined || network === undefined) {
    const message = `Container ${vmid} cannot be adopted: ${reasons.join("; ")}.`;
    throw new DomainError("wrong-state", "CONTAINER_NOT_ADOPTABLE", message, { details: { reasons } });
  }
  return {
    ...seen,
    bridge: network.bridge,
    mac: seen.mac.toUpperCase(),
    storageId: storage.id,
    power: seen.power === Power.POWER_RUNNING ? "running" : "stopped",
    network: {
      ip: network.ip,
      gateway: network.gateway,
      firewall: network.firewall,
      vlanTag: network.vlanTag,
      nameserver: seen.nameserver,
      searchDomain: seen.searchDomain,
    },
    region: node.region,
    replacesPodId: isMarkInVain ? seen.podId : "",
  };
}

/** Whether it carries the mark of a pod that it never became: its adoption failed after the host had marked it. */
async function wasAdoptedInVain(tx: Queryable, { podId, vmid }: ContainerObservation): Promise<boolean> {
  if (!isUuid(podId)) return false;
  const pods = await tx.query(sql`
    SELECT FROM cloud_pods WHERE id = ${podId} AND vmid = ${vmid} AND status = 'deleted' AND adopted_network IS NOT NULL AND activated_at IS NULL`);
  return pods.length > 0;
}

/** Inventories are kept without the network of what carries a mark; of what has no place here everything is kept. */
async function readWhole(tx: Queryable, nodeId: string, shown: ContainerObservation): Promise<ContainerObservation> {
  const [kept] = await tx.query<{ observation: unknown }>(sql`
    SELECT observation FROM unmanaged_containers WHERE node_id = ${nodeId} AND vmid = ${shown.vmid}`);
  const whole = kept === undefined ? shown : ContainerObservation.fromJSON(kept.observation);
  return whole.podId === shown.podId && whole.configSha256 === shown.configSha256 ? whole : shown;
}

/** Why a container cannot become a pod; empty when it can. */
function obstacles(seen: ContainerObservation, isStorageKnown: boolean, isMarkInVain: boolean): string[] {
  const { network } = seen;
  const when = (is: boolean, reason: string): string[] => (is ? [reason] : []);
  // Nothing else is told of it: inventories leave out what is known of a pod.
  if (seen.podId !== "" && !isMarkInVain) return ["it carries the mark of a pod"];
  return [
    ...when(seen.template, "it is a template"),
    ...when(seen.lock !== "", `it is locked (${seen.lock})`),
    // Whoever is root in it would be root on the host.
    ...when(!seen.unprivileged, "it is privileged"),
    ...when(seen.partsOfNoPod.length > 0, `it has what no pod has: ${seen.partsOfNoPod.join(", ")}`),
    ...when(seen.cores < 1, "it has no limit of cores"),
    ...when(seen.memoryMb < 16, "it has too little memory"),
    ...when(seen.diskGb < 1, "its root disk has no size"),
    ...when(!isStorageKnown, `its storage ${seen.storage || "(none)"} holds no root disks that we know of`),
    ...when(network === undefined || network.bridge === "" || seen.mac === "", "it has no network interface"),
    ...when(network?.ip === "" || network?.ip === "manual", "its interface has no address"),
    ...when(!hostnameField.safeParse(seen.hostname).success, "its host name is no DNS label"),
  ];
}
