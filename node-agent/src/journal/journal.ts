import { type ContainerSpec, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";

/** A command that the agent took on. Times are ms since 1970 UTC by the disciplined clock. */
export interface JournalledCommand {
  readonly commandId: string;
  /** Name of the operation, e.g. "ensure_container". */
  readonly operation: string;
  readonly podId: string;
  readonly vmid: number;
  /** The `Command` message as bytes. */
  readonly envelope: Uint8Array;
  readonly state: "accepted" | "running" | "finished";
  readonly acceptedAtMs: number;
  /** When it was accepted by the clock that nobody sets: the boot of the host and its monotonic ms. */
  readonly acceptedIn: { readonly bootId: string; readonly monotonicMs: number };
  readonly startedAtMs: number | undefined;
  /** The `CommandResult` message as bytes; present exactly when finished. */
  readonly result: Uint8Array | undefined;
}

/** The newest wish accepted for a pod: what orders and fences everything that comes later. */
export interface Fence {
  readonly podId: string;
  readonly vmid: number;
  readonly fleetEpoch: bigint;
  readonly generation: bigint;
  readonly revision: bigint;
  /** False after the pod's container was wished away. */
  readonly present: boolean;
  /** Undefined when only the power was wished in this generation. */
  readonly spec: ContainerSpec | undefined;
  readonly power: Power;
  readonly shutdownTimeoutSeconds: number;
}

/** The agent's durable memory of commands. Every method that writes has flushed when it returns. */
export interface Journal {
  find(commandId: string): JournalledCommand | undefined;
  findFence(podId: string): Fence | undefined;
  fences(): Fence[];
  /** Takes a command on, with the fence that it moves, in one transaction. */
  accept(
    command: Pick<
      JournalledCommand,
      "commandId" | "operation" | "podId" | "vmid" | "envelope" | "acceptedAtMs" | "acceptedIn"
    >,
    fence: Fence | undefined,
  ): void;
  start(commandId: string, startedAtMs: number): void;
  /** Notes that the VMID was free in the whole cluster before this command's first create. */
  recordVmidAbsent(commandId: string): void;
  /** Whether a command of this pod found the VMID free and nothing was completed for the pod since. */
  wasVmidAbsent(podId: string, vmid: number): boolean;
  /** Ends what `recordVmidAbsent` began: the pod's container is complete or gone. */
  forgetVmidAbsent(podId: string): void;
  /** Stores the result of a command; the first result stays. */
  finish(commandId: string, result: Uint8Array, finishedAtMs: number): void;
  /** Notes that the control plane has the result. */
  confirm(commandId: string, confirmedAtMs: number): void;
  /** In the order in which they came, whatever the clock said meanwhile. */
  unfinished(): JournalledCommand[];
  /** Finished commands whose result the control plane has not confirmed, oldest first. */
  unconfirmed(limit: number): { readonly commandId: string; readonly result: Uint8Array }[];
  /** Removes commands that were confirmed before an instant; returns how many. */
  prune(confirmedBeforeMs: number): number;
  /** Highest fleet epoch ever met; 0 before any. */
  fleetEpoch(): bigint;
  raiseFleetEpoch(epoch: bigint): void;
  /** Boot of the host for which the control plane (or an operator) has said what may run. */
  ownershipBootId(): string | undefined;
  confirmOwnership(bootId: string): void;
  close(): void;
}

/** A power that a fence may hold; what a newer control plane might send is taken as "as it is". */
export function knownPower(power: number): Power {
  if (power === Power.POWER_RUNNING) return Power.POWER_RUNNING;
  if (power === Power.POWER_STOPPED) return Power.POWER_STOPPED;
  return Power.POWER_UNSPECIFIED;
}
