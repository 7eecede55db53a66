import type { FindingKind } from "@cloudpods/shared/finding-kinds";

/** `dismissed`: an operator has seen it and wants it so; it is open again when it changes. */
export const findingStates = ["open", "dismissed", "resolved"] as const;
export type FindingState = (typeof findingStates)[number];

/** What an operator may decide about a finding; each finding offers some. Adopting is a route of its own. */
export const remedies = ["accept", "repair", "remove", "dismiss", "adopt"] as const;
export type Remedy = (typeof remedies)[number];

/** An archive that was tried to look after so often that people should know. */
export interface StuckArchive {
  readonly podId: string;
  readonly vmid: number;
  readonly volumeId: string;
  readonly madeFor: "move" | "backup";
  readonly errand: "delete" | "verify";
  readonly tries: number;
  /** What the last host said. */
  readonly error: string | null;
}

/** What is done about a finding by itself. */
export type AutomaticDeed = "stop" | "remove" | "repair";

/** Something that is not as it should be, as one inventory shows it. */
export interface Fact {
  readonly vmid: number;
  readonly podId: string | null;
  readonly kind: FindingKind;
  /** What exactly it is: with another subject the finding begins anew. */
  readonly subject: string;
  /** What the host said and what is wanted. */
  readonly evidence: Readonly<Record<string, unknown>>;
  readonly offered: readonly Remedy[];
}

/** A finding that has not been resolved, as it was before this inventory. */
export interface KnownFinding {
  readonly id: string;
  readonly vmid: number;
  readonly kind: FindingKind;
  readonly subject: string;
  readonly state: "open" | "dismissed";
  readonly firstSeenAt: Date;
  /** In how many different inventories. */
  readonly sightings: number;
  /** The last thing that was done about it. */
  readonly action: string | null;
  readonly actedAt: Date | null;
  /** How often in vain. */
  readonly attempts: number;
}
