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

/**
 * Running containers that are left over from an older placement: the pod is owned by this host in a
 * higher generation. Containers that the control plane does not list are left alone: it may have
 * been restored and not know them yet, so they are only reported.
 */
export function staleCopies(containers: readonly ContainerObservation[], owned: readonly OwnedPod[]): PowerChange[] {
  const generations = new Map(owned.map(({ podId, generation }) => [podId, generation]));
  return containers
    .filter(({ podId, generation, power }) => {
      const inForce = generations.get(podId);
      return podId !== "" && power === Power.POWER_RUNNING && inForce !== undefined && generation < inForce;
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
