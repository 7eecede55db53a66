import { type Command, CommandOutcome, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { type Fence, type JournalledCommand, knownPower } from "../journal/journal.ts";
import { type SupportedOperation, factsOf, isSupported } from "./operations.ts";

/** What the agent knows when a command arrives. */
export interface AdmissionFacts {
  /** The journal's row of the same command id. */
  readonly recorded: Pick<JournalledCommand, "state" | "result"> | undefined;
  /** The journal's fence of the pod. */
  readonly fence: Fence | undefined;
  /** Generation in the marker of the pod's own container on that VMID; undefined without one. */
  readonly markerGeneration: bigint | undefined;
  /** Highest fleet epoch ever met. */
  readonly fleetEpoch: bigint;
  /** Names of the operations that this host carries out. */
  readonly capabilities: readonly string[];
}

/** What to do with a command that arrived. */
export type Admission =
  /** Finished before: answer with the recorded result. */
  | { readonly decision: "repeat"; readonly result: Uint8Array }
  /** Already in the journal and not finished: confirm once more that it is. */
  | { readonly decision: "known" }
  /** Journal it, move the fence when there is one, then run it. */
  | { readonly decision: "accept"; readonly op: SupportedOperation; readonly fence: Fence | undefined }
  /** Answer without running; `record` says that the answer stays the same for ever. */
  | {
      readonly decision: "refuse";
      readonly outcome: CommandOutcome;
      readonly code: string;
      readonly message: string;
      readonly record: boolean;
    };

/**
 * Decides about one delivery of a command. Deliveries may be repeated, late, reordered or incomplete:
 * only a complete command that is newer than everything accepted for its pod changes anything.
 */
export function admitCommand(command: Command, facts: AdmissionFacts): Admission {
  if (facts.recorded?.result !== undefined) return { decision: "repeat", result: facts.recorded.result };
  if (facts.recorded !== undefined) return { decision: "known" };
  const { op } = command;
  if (!isSupported(op) || !facts.capabilities.includes(factsOf(op).name)) {
    // Not recorded: a newer agent may know the operation, and a truncated command may come whole.
    return refuse(CommandOutcome.COMMAND_OUTCOME_UNSUPPORTED, "UNSUPPORTED", operationMessage(command), false);
  }
  const fault = envelopeFault(command, op);
  if (fault !== undefined) {
    return refuse(CommandOutcome.COMMAND_OUTCOME_FAILED, "INVALID_COMMAND", fault, false);
  }
  if (command.fleetEpoch < facts.fleetEpoch) {
    return stale(`epoch ${command.fleetEpoch} is below ${facts.fleetEpoch}`);
  }
  const { kind } = factsOf(op);
  if (kind === "control") return { decision: "accept", op, fence: undefined };
  const order = compareWithFence(command, facts.fence);
  if (order === "older-placement" || isBelowMarker(command, facts)) {
    const known = facts.fence?.generation ?? facts.markerGeneration;
    return stale(`generation ${command.generation} is below ${known ?? "the accepted one"}`);
  }
  if (kind !== "wish") return { decision: "accept", op, fence: undefined };
  if (order === "not-newer") {
    const message = `revision ${command.revision} is not above ${facts.fence?.revision ?? 0n}`;
    return refuse(CommandOutcome.COMMAND_OUTCOME_SUPERSEDED, "SUPERSEDED", message, true);
  }
  return { decision: "accept", op, fence: moveFence(command, op, facts.fence) };
}

/**
 * Whether the newest wishes of the pod still want what an accepted wish asked for. A wish may wait
 * behind others; carrying it out after it was overtaken would undo the newer one.
 */
export function isStillWanted(command: Command, fence: Fence | undefined): boolean {
  if (fence === undefined) return true;
  if (fence.fleetEpoch !== command.fleetEpoch || fence.generation !== command.generation) return false;
  const { op } = command;
  if (op?.$case === "ensureAbsent") return !fence.present;
  if (op?.$case === "ensureContainer") return fence.present;
  return op?.$case !== "ensurePower" || (fence.present && fence.power === op.value.power);
}

function compareWithFence(command: Command, fence: Fence | undefined): "older-placement" | "not-newer" | "newer" {
  if (fence === undefined || command.fleetEpoch > fence.fleetEpoch) return "newer";
  if (command.fleetEpoch < fence.fleetEpoch || command.generation < fence.generation) return "older-placement";
  if (command.generation > fence.generation) return "newer";
  return command.revision > fence.revision ? "newer" : "not-newer";
}

/**
 * The marker counts when it is above the journal's fence, as after the loss of a journal. One that
 * the fence explains is ignored: after a restore of the control plane's database a higher epoch may
 * rightly come with a lower generation.
 */
function isBelowMarker(command: Command, { fence, markerGeneration }: AdmissionFacts): boolean {
  if (markerGeneration === undefined || command.generation >= markerGeneration) return false;
  return fence === undefined || markerGeneration > fence.generation;
}

function moveFence(command: Command, op: SupportedOperation, fence: Fence | undefined): Fence {
  const samePlacement =
    fence !== undefined &&
    fence.present &&
    fence.fleetEpoch === command.fleetEpoch &&
    fence.generation === command.generation;
  const moved: Fence = {
    podId: command.podId,
    vmid: command.vmid,
    fleetEpoch: command.fleetEpoch,
    generation: command.generation,
    revision: command.revision,
    present: op.$case !== "ensureAbsent",
    spec: samePlacement ? fence.spec : undefined,
    power: samePlacement ? fence.power : Power.POWER_UNSPECIFIED,
    shutdownTimeoutSeconds: samePlacement ? fence.shutdownTimeoutSeconds : 0,
  };
  if (op.$case === "ensureContainer") return { ...moved, spec: op.value.spec };
  if (op.$case === "ensurePower") {
    const { power, shutdownTimeoutSeconds } = op.value;
    return { ...moved, power: knownPower(power), shutdownTimeoutSeconds };
  }
  return { ...moved, spec: undefined, power: Power.POWER_UNSPECIFIED };
}

/** Whether a text is a UUID in its usual, lower-case form. */
export function isUuid(text: string): boolean {
  return uuid.test(text);
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Proxmox's own range (pve-common, PVE::JSONSchema, pve-vmid). */
const vmidRange = { least: 100, most: 999_999_999 };

function envelopeFault(command: Command, op: SupportedOperation): string | undefined {
  if (!isUuid(command.commandId)) return "command_id is not a UUID";
  if (command.ttlMs < 0n || command.timeoutMs < 0n) return "a duration is negative";
  if (op.$case === "cancelCommand") {
    return isUuid(op.value.commandId) ? undefined : "cancel_command.command_id is not a UUID";
  }
  if (factsOf(op).kind === "control") return undefined;
  if (!isUuid(command.podId)) return "pod_id is not a UUID";
  if (command.vmid < vmidRange.least || command.vmid > vmidRange.most) return "vmid is out of range";
  if (command.generation < 1n) return "generation is missing";
  if (factsOf(op).kind === "wish" && command.revision < 1n) return "revision is missing";
  if (op.$case === "ensureContainer" && op.value.spec === undefined) return "ensure_container.spec is missing";
  if (op.$case === "restore" && op.value.spec === undefined) return "restore.spec is missing";
  if (op.$case === "ensurePower" && knownPower(op.value.power) === Power.POWER_UNSPECIFIED) {
    return "ensure_power.power is neither running nor stopped";
  }
  return undefined;
}

function operationMessage(command: Command): string {
  return command.op === undefined
    ? "This agent does not know the operation of the command."
    : `This host does not carry out ${command.op.$case}.`;
}

function stale(message: string): Admission {
  return refuse(CommandOutcome.COMMAND_OUTCOME_STALE_GENERATION, "STALE_GENERATION", message, true);
}

function refuse(outcome: CommandOutcome, code: string, message: string, record: boolean): Admission {
  return { decision: "refuse", outcome, code, message, record };
}
