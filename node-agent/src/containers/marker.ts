/**
 * The line of a container's description that makes it ours. It is set in the same call that makes a
 * container, survives clone, backup, restore and migration, and is the second, durable copy of the
 * fence: a wish with a lower epoch or generation is refused also when the journal was lost.
 */
export interface Marker {
  /** The pod (UUID, lower case). */
  readonly podId: string;
  readonly fleetEpoch: bigint;
  readonly generation: bigint;
  /** "new" until the container got its own configuration after a clone. */
  readonly stage: "new" | "ready";
  /** Digest of the SSH keys that were written into it; "none" when none were. */
  readonly keys: string;
}

/** Tag that shows our containers in Proxmox's own pages. */
export const OWNER_TAG = "cloudpods";

const LINE =
  /^cloudpods pod=([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) epoch=(\d{1,18}) generation=(\d{1,18}) stage=(new|ready) keys=([0-9a-f]{16}|none)$/u;

/** The marker in a description; undefined when there is none, more than one, or a malformed one. */
export function parseMarker(description: string): Marker | undefined {
  const lines = description.split("\n").filter(isMarkerLine);
  const [, podId, epoch, generation, stage, keys] = LINE.exec(lines.length === 1 ? (lines[0] ?? "") : "") ?? [];
  if (podId === undefined || epoch === undefined || generation === undefined) return undefined;
  if ((stage !== "new" && stage !== "ready") || keys === undefined) return undefined;
  return { podId, fleetEpoch: BigInt(epoch), generation: BigInt(generation), stage, keys };
}

/** The line that `parseMarker` reads. */
export function formatMarker(marker: Marker): string {
  const { podId, fleetEpoch, generation, stage, keys } = marker;
  return `cloudpods pod=${podId} epoch=${fleetEpoch} generation=${generation} stage=${stage} keys=${keys}`;
}

/** A description with its marker replaced and every other line, written by people, kept. */
export function replaceMarker(description: string, marker: Marker): string {
  const others = description.split("\n").filter((line) => !isMarkerLine(line));
  while (others.at(-1) === "") others.pop();
  return [formatMarker(marker), ...others].join("\n");
}

/** Whether a description has a line that begins as a marker does, readable or not. */
export function mentionsMarker(description: string): boolean {
  return description.split("\n").some(isMarkerLine);
}

/**
 * Notes in a description which command restored the container: whoever asks again sees that it was done, also
 * when nothing else remembers, and does not restore over what was written since.
 */
export function noteRestore(description: string, commandId: string): string {
  const others = description.split("\n").filter((line) => !line.startsWith(RESTORE_PREFIX));
  while (others.at(-1) === "") others.pop();
  return [...others, `${RESTORE_PREFIX}${commandId}`].join("\n");
}

/** Whether a description says that a container was restored by that command. */
export function wasRestoredBy(description: string, commandId: string): boolean {
  return description.split("\n").includes(`${RESTORE_PREFIX}${commandId}`);
}

const RESTORE_PREFIX = "cloudpods restored=";

function isMarkerLine(line: string): boolean {
  return line.startsWith("cloudpods pod=");
}
