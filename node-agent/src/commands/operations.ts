import type { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";

/** The oneof of a command, set. */
export type CommandOperation = NonNullable<Command["op"]>;

/** What the agent knows about an operation that it carries out. */
export interface OperationFacts {
  /** Name in the protocol and in Hello.capabilities. */
  readonly name: string;
  /**
   * A wish states a result and is ordered by its revision; a deed happens once and expires; a look
   * changes nothing; a control acts on the agent itself and concerns no container.
   */
  readonly kind: "wish" | "deed" | "look" | "control";
  /** A deed that finds out what a former process did of it, and may therefore be called again. */
  readonly isResumable?: boolean;
  /** It takes hours and is done one at a time: it waits apart from what customers wait for. */
  readonly isSlow?: boolean;
  /** How long it may take when the command does not say, in ms. */
  readonly defaultTimeoutMs: number;
}

const minuteMs = 60_000;

/** The operations of the protocol that this agent carries out. */
export const operations = {
  ensureContainer: { name: "ensure_container", kind: "wish", defaultTimeoutMs: 30 * minuteMs },
  ensurePower: { name: "ensure_power", kind: "wish", defaultTimeoutMs: 10 * minuteMs },
  ensureAbsent: { name: "ensure_absent", kind: "wish", defaultTimeoutMs: 30 * minuteMs },
  adopt: { name: "adopt", kind: "deed", isResumable: true, defaultTimeoutMs: 10 * minuteMs },
  backup: { name: "backup", kind: "deed", isResumable: true, isSlow: true, defaultTimeoutMs: 240 * minuteMs },
  deleteBackup: { name: "delete_backup", kind: "deed", isResumable: true, defaultTimeoutMs: 30 * minuteMs },
  restore: { name: "restore", kind: "deed", isResumable: true, defaultTimeoutMs: 240 * minuteMs },
  migrate: { name: "migrate", kind: "deed", isResumable: true, defaultTimeoutMs: 240 * minuteMs },
  verifyBackup: { name: "verify_backup", kind: "look", defaultTimeoutMs: 240 * minuteMs },
  reboot: { name: "reboot", kind: "deed", defaultTimeoutMs: 10 * minuteMs },
  inspect: { name: "inspect", kind: "look", defaultTimeoutMs: 10 * minuteMs },
  cancelCommand: { name: "cancel_command", kind: "control", defaultTimeoutMs: 2 * minuteMs },
  renewCertificate: { name: "renew_certificate", kind: "control", defaultTimeoutMs: 5 * minuteMs },
} as const satisfies Partial<Record<CommandOperation["$case"], OperationFacts>>;

/** An operation that this agent carries out. */
export type SupportedOperation = Extract<CommandOperation, { $case: keyof typeof operations }>;

/** Names for Hello.capabilities: a host without containers carries out only what concerns the agent. */
export function capabilitiesOf(hasContainers: boolean): string[] {
  return Object.values(operations)
    .filter(({ kind }) => hasContainers || kind === "control")
    .map(({ name }) => name);
}

/** Narrows the operation of a command to those that this agent carries out. */
export function isSupported(op: Command["op"]): op is SupportedOperation {
  return op !== undefined && Object.hasOwn(operations, op.$case);
}

/** Facts of a supported operation. */
export function factsOf(op: SupportedOperation): OperationFacts {
  return operations[op.$case];
}
