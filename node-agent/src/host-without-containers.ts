import { availableParallelism, totalmem } from "node:os";
import type { HostCapacity } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { ContainerFailure } from "./containers/container-failure.ts";
import type { Containers } from "./containers/containers.ts";

/** A host that is no hypervisor: it has no containers and refuses to make any. */
export function createHostWithoutContainers(nowMs: () => number): Containers {
  const refuse = (): Promise<never> =>
    Promise.reject(new ContainerFailure("HOST_UNKNOWN", "This host is not a hypervisor.", { retryable: false }));
  return {
    observe: () => Promise.resolve(undefined),
    inventory: () =>
      Promise.resolve({
        known: true,
        observedAtMs: BigInt(nowMs()),
        containers: [],
        storages: [],
        templateVolumeIds: [],
        quorate: true,
        foreignVmids: [],
        sessionEpoch: 0n,
      }),
    hostCapacity: () => Promise.resolve(ownCapacity()),
    pveIdentity: () => Promise.resolve({ name: "", version: "", clusterName: "" }),
    planLines: refuse,
    planCommands: refuse,
    converge: refuse,
    reboot: refuse,
    backUp: refuse,
    deleteBackup: refuse,
    verifyBackup: refuse,
    restore: refuse,
    checkRestore: refuse,
    migrate: refuse,
    adopt: refuse,
    stopStrays: () => Promise.resolve({ stopped: [], running: [] }),
    awaitAddress: refuse,
    recover: refuse,
  };
}

function ownCapacity(): HostCapacity {
  return { cpuCores: availableParallelism(), memoryMb: Math.floor(totalmem() / 1_048_576) };
}
