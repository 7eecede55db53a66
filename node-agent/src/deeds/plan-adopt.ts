import { ContainerFailure } from "../containers/container-failure.ts";
import type { ContainerFailureCode } from "../containers/container-failure.ts";
import type { AdoptOrder } from "../containers/containers.ts";
import { OWNER_TAG, mentionsMarker, parseMarker, replaceMarker } from "../containers/marker.ts";
import { isNamelessHalf, lockOf, partsOfNoPod } from "../containers/observed-container.ts";
import type { ObservedContainer } from "../containers/observed-container.ts";
import { requireOwnership } from "../containers/plan-container.ts";
import type { ConfigOptions } from "../pct/pct-arguments.ts";
import type { ContainerConfig } from "../pct/parse-pct-config.ts";
import { parseRootDisk, splitList } from "../pct/parse-pct-config.ts";

/** What an adoption writes into a configuration. */
export interface Adoption {
  readonly options: ConfigOptions;
  /** The file that it was agreed for. */
  readonly digest: string;
}

/** Limits that a pod's wish takes away, and the values at which that changes nothing. */
const NO_LIMITS = { cpulimit: "0", cpuunits: "100" } as const;

/**
 * The change that makes somebody's container the pod's; undefined when it is already. Its owner's description
 * stays below the mark, only control characters that Proxmox would not take are blanks then.
 * @throws ContainerFailure when it may not be taken over
 */
export function planAdopt(order: AdoptOrder, observed: ObservedContainer): Adoption | undefined {
  const { vmid, podId, fleetEpoch, generation, replacesPodId } = order;
  if (observed.where === "nowhere") throw refused("CONTAINER_MISSING", `container ${vmid} does not exist`);
  if (observed.where === "elsewhere") {
    const code = observed.type === "lxc" ? "ON_OTHER_NODE" : "VMID_CONFLICT";
    throw refused(code, `${vmid} is on node ${observed.node}`);
  }
  const { config } = observed;
  const marked = parseMarker(config.description);
  if (marked !== undefined && marked.podId !== replacesPodId) {
    requireOwnership(order, observed);
    return undefined;
  }
  if (marked === undefined && mentionsMarker(config.description)) {
    throw refused("VMID_CONFLICT", `container ${vmid} carries a marker that cannot be read`);
  }
  if (config.options.get("template") === "1") throw refused("IS_TEMPLATE", `container ${vmid} is a template`);
  if (observed.configSha256 !== order.expectedConfigSha256 || isNamelessHalf(config)) {
    throw refused("CONFIG_CHANGED", `container ${vmid} is not as it was when it was looked at`);
  }
  if (lockOf(config) !== "") throw refused("LOCKED", `CT ${vmid} is locked (${lockOf(config)})`);
  refuseUnlikePods(vmid, config);
  const text = config.description.replaceAll(/[^\P{Cc}\n]/gu, " ");
  const marker = { podId, fleetEpoch, generation, stage: "ready", keys: "none" } as const;
  const tags = [...new Set([...splitList(config.options.get("tags") ?? ""), OWNER_TAG])].toSorted();
  const options = { description: replaceMarker(text, marker), tags, onboot: false };
  return { options, digest: observed.digest };
}

/** What a pod cannot be: the pod's archives and its first wish would take it away, or its tenant would reach the host. */
function refuseUnlikePods(vmid: number, config: ContainerConfig): void {
  const parts = partsOfNoPod(config);
  if (parts.length > 0) {
    throw refused("MORE_THAN_A_POD", `container ${vmid} has ${parts.join(", ")}, which no pod has`);
  }
  const limits = Object.entries(NO_LIMITS).filter(([key, none]) => (config.options.get(key) ?? none) !== none);
  if (limits.length > 0) {
    const keys = limits.map(([key]) => key).join(", ");
    throw refused("NOT_SIZED_LIKE_A_POD", `container ${vmid} has ${keys}, which no pod has: pct set --delete it first`);
  }
  const gib = (parseRootDisk(config.options.get("rootfs") ?? "")?.sizeBytes ?? 0) / 2 ** 30;
  if (Number.isInteger(gib)) return;
  const message = `the root disk of container ${vmid} has ${gib.toFixed(2)} GiB, and that of a pod has whole ones: grow it first`;
  throw refused("NOT_SIZED_LIKE_A_POD", message);
}

function refused(code: ContainerFailureCode, message: string): ContainerFailure {
  return new ContainerFailure(code, message, { retryable: false });
}
