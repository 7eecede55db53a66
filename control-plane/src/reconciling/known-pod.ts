/** A pod as far as it says what a host should have. */
export interface KnownPod {
  readonly id: string;
  readonly vmid: number;
  readonly status: "provisioning" | "active" | "suspended" | "failed" | "deleting" | "deleted";
  /** Host of its place; null without one. */
  readonly nodeId: string | null;
  readonly node: string | null;
  /** Of its place. */
  readonly generation: bigint;
  /** Highest that any host was ever told, in moves that came to nothing too. */
  readonly highestGeneration: bigint;
  /** What its owner and its holds want. */
  readonly power: "running" | "stopped";
  readonly cores: number;
  readonly memoryMb: number;
  readonly swapMb: number;
  readonly diskGb: number;
  readonly hostname: string;
  readonly mac: string;
  readonly storage: string | null;
  readonly rateLimitKibPerSecond: number;
  /** False while work, a move or a command concerns it, or one ended after the inventory was taken. */
  readonly isSettled: boolean;
  /** Room on the compared host is claimed for it: where it is not placed there, something of it may rightly be there. */
  readonly hasRoomHere: boolean;
  /** Generation of the newest place on the compared host that is kept for it; null without one. */
  readonly keptHere: bigint | null;
  /** The newest word of its own host is that it has lost the container. */
  readonly isMissingAtHome: boolean;
  /** Where else containers with its mark are seen. */
  readonly seenOn: readonly { readonly node: string; readonly generation: string; readonly power: string }[];
  /** The newest word of its own host is that its container is there. */
  readonly isSeenAtHome: boolean;
  readonly wasActivated: boolean;
  readonly wasAdopted: boolean;
  /** Its owner has given it up. */
  readonly isRemovalAsked: boolean;
  /** What it could be restored from. */
  readonly newestBackup: { readonly id: string; readonly madeAt: string } | null;
}

/** Given up with its host: should that come back, what is left of the pod must be seen. Its room is kept for it. */
export function isLost({ nodeId, status, wasActivated }: KnownPod): boolean {
  return nodeId === null && status === "failed" && wasActivated;
}

/** Whether the pod shall have a container. */
export function shallExist(pod: KnownPod): boolean {
  return pod.status === "active" || pod.status === "suspended";
}
