import {
  type ContainerObservation,
  type OwnedPod,
  Power,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Fence } from "../journal/journal.ts";

/** A container of ours whose power has to change, with the generation in its marker. */
export interface PowerChange {
  readonly podId: string;
  readonly vmid: number;
  readonly generation: bigint;
}

/** What a session says of the pods that this host has or had. */
export interface Placements {
  /** Pods that this host owns. */
  readonly owned: readonly OwnedPod[];
  /** Pods that another host owns now. */
  readonly elsewhere: readonly OwnedPod[];
  /** This host is a member of a Proxmox cluster. */
  readonly isClustered: boolean;
}

/**
 * Running containers that are left over from an older placement: their pod has a higher generation, here or on
 * another host. In a cluster an id exists once, so the container on the id of a pod that this host owns is that
 * pod's, arrived from another member with the mark that it had there; the next wish marks it anew. Containers
 * that the control plane does not list are left alone: it may have been restored and not know them yet.
 */
export function staleCopies(
  containers: readonly ContainerObservation[],
  { owned, elsewhere, isClustered }: Placements,
): PowerChange[] {
  const here = new Map(owned.map((pod) => [pod.podId, pod]));
  const away = new Map(elsewhere.map((pod) => [pod.podId, pod]));
  return containers
    .filter(({ podId, vmid, generation, power }) => {
      if (podId === "" || power !== Power.POWER_RUNNING) return false;
      const inForce = here.get(podId);
      if (inForce === undefined) return generation < (away.get(podId)?.generation ?? 0n);
      const hasArrived = isClustered && vmid === inForce.vmid;
      return generation < inForce.generation && !hasArrived;
    })
    .map(toPowerChange);
}

/** Stopped containers that shall run and carry exactly the generation that this host owns. */
export function containersToStart(
  containers: readonly ContainerObservation[],
  wanted: readonly Pick<OwnedPod, "podId" | "vmid" | "generation">[],
): PowerChange[] {
  return wanted.flatMap((pod) =>
    containers
      .filter(
        (seen) =>
          seen.podId === pod.podId &&
          seen.vmid === pod.vmid &&
          seen.generation === pod.generation &&
          seen.power === Power.POWER_STOPPED &&
          !seen.template,
      )
      .map(toPowerChange),
  );
}

/** Pods that shall run according to the control plane. */
export function wantedByOwnership(owned: readonly OwnedPod[]): OwnedPod[] {
  return owned.filter(({ desiredPower }) => desiredPower === Power.POWER_RUNNING);
}

/** Pods that shall run according to the newest wishes that the host remembers. */
export function wantedByFences(fences: readonly Fence[]): Fence[] {
  return fences.filter(({ present, power }) => present && power === Power.POWER_RUNNING);
}

function toPowerChange({ podId, vmid, generation }: ContainerObservation): PowerChange {
  return { podId, vmid, generation };
}
