import type { ContainerSpec, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";

/** What the control plane wants of one container of this host. */
export interface ContainerWish {
  /** The pod (UUID). */
  readonly podId: string;
  readonly vmid: number;
  /** Epoch of the control plane's database. */
  readonly fleetEpoch: bigint;
  /** Generation of the pod's placement on this host. */
  readonly generation: bigint;
  /** False: the container and its disks are gone. */
  readonly present: boolean;
  /** Of one that shall be gone: keys of volumes besides the root disk that may go with it; absent: none may. */
  readonly volumes?: readonly string[];
  /** The whole container; absent when only its power is wished. */
  readonly spec?: ContainerSpec;
  /** Absent or POWER_UNSPECIFIED: as it is. */
  readonly power?: Power;
  /** How long a guest may take to shut down before it is stopped; 0 stops it at once. */
  readonly shutdownTimeoutSeconds?: number;
}
