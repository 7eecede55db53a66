import type { ContainerObservation, MoveObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { AgentError, messageOf } from "../agent-error.ts";
import type { PctErrorCode } from "../pct/classify-pct-error.ts";

/**
 * Every way in which the agent can fail to give a container the wished state: what the host's
 * programs report, and what the agent itself refuses or finds.
 */
export type ContainerFailureCode =
  | PctErrorCode
  /** The container on this VMID does not carry the pod's marker. */
  | "VMID_CONFLICT"
  /** The marker names a newer placement than the wish. */
  | "STALE_GENERATION"
  /** The wish needs a container that is not there. */
  | "CONTAINER_MISSING"
  /** The cluster keeps this container on another member. */
  | "ON_OTHER_NODE"
  /** The wished disk is smaller than the present one. */
  | "DISK_SHRINK_UNSUPPORTED"
  /** The wished user namespace differs from the present one, which cannot be changed. */
  | "UNPRIVILEGED_MISMATCH"
  /** The clone source is not a template. */
  | "NOT_A_TEMPLATE"
  /** A new container was wished without saying what to make it from. */
  | "SOURCE_MISSING"
  /** A destroy began and did not finish: only EnsureAbsent can go on. */
  | "HALF_DESTROYED"
  /** The program reported success and the container is not as wished. */
  | "STEP_WITHOUT_EFFECT"
  /** The disk grew and the file system in it did not. */
  | "FILESYSTEM_NOT_GROWN"
  /** The SSH keys that were read back are not those that were written. */
  | "KEYS_NOT_PUSHED"
  /** /etc/pve is not mounted or unreadable: nothing about the host is known. */
  | "HOST_UNKNOWN"
  /** The archive is not there. */
  | "BACKUP_MISSING"
  /** The archive was not written by this agent's kind of backup. */
  | "BACKUP_FORMAT_UNSUPPORTED"
  /** The volume is no archive of this container. */
  | "NOT_AN_ARCHIVE"
  /** The container has volumes, interfaces or ways to the host that no pod has. */
  | "MORE_THAN_A_POD"
  /** The container has limits or a disk that no pod can have. */
  | "NOT_SIZED_LIKE_A_POD"
  /** A container is there and was not to be replaced. */
  | "CONTAINER_EXISTS"
  /** The disk of a dead member cannot be seen from here, and no archive was named. */
  | "DISK_NOT_SHARED"
  /** The member that the container shall be taken from lives. */
  | "MEMBER_ONLINE"
  /** The member that the container shall be moved to is away. */
  | "MEMBER_OFFLINE"
  /** The command ran out of time. */
  | "DEADLINE_EXCEEDED"
  /** The command was cancelled. */
  | "CANCELLED";

/** What was known when a wish failed. */
export interface ContainerFailureDetails {
  /** Whether the same wish can succeed later without anybody changing something. */
  readonly retryable: boolean;
  /** The container as it was found after the failure; absent when it could not be looked at. */
  readonly observation?: ContainerObservation;
  /** The exact command lines that were run before the failure. */
  readonly commandLines?: readonly string[];
  /** Where a container is that was to be moved, and how long it stood still for that in vain. */
  readonly move?: MoveObservation;
}

/** A wish that could not be fulfilled, with a code that the control plane understands. */
export class ContainerFailure extends AgentError {
  declare readonly code: ContainerFailureCode;
  readonly observation: ContainerObservation | undefined;
  readonly commandLines: readonly string[];
  readonly move: MoveObservation | undefined;

  constructor(code: ContainerFailureCode, message: string, details: ContainerFailureDetails) {
    super(code, message, { retryable: details.retryable });
    this.observation = details.observation;
    this.commandLines = details.commandLines ?? [];
    this.move = details.move;
  }
}

/** Anything that was thrown, as a failure with a code. */
export function asFailure(error: unknown): ContainerFailure {
  if (error instanceof ContainerFailure) return error;
  if (error instanceof AgentError && error.code === "INVALID_ARGUMENT") {
    return new ContainerFailure("INVALID_ARGUMENT", error.message, { retryable: false });
  }
  return new ContainerFailure("UNKNOWN_ERROR", messageOf(error), { retryable: true });
}
