import { Heartbeat, NodePresence } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { isUuid } from "@cloudpods/shared/ids";

/** A heartbeat with when it came. */
export interface ReceivedHeartbeat {
  /** From the topic, which the broker grants to the holder of the node's certificate only. */
  readonly nodeId: string;
  readonly receivedAtMs: number;
  readonly heartbeat: Heartbeat;
}

/** A condition that a heartbeat shows. */
export interface HostCondition {
  readonly kind: (typeof heartbeatConditionKinds)[number];
  readonly message: string;
}

/** Conditions that heartbeats alone raise and clear. */
export const heartbeatConditionKinds = ["ClockSkew", "SpoolDamaged", "StorageFull", "TelemetryLag"] as const;

const integerMax = 2_147_483_647;
const textLengthMax = 200;
const filesNamedMax = 3;
const yearMs = 366 * 86_400_000;

/** Reads a heartbeat; undefined when it is malformed or holds what no host can mean. */
export function readHeartbeat(payload: Uint8Array): Heartbeat | undefined {
  const heartbeat = decode(() => Heartbeat.decode(payload));
  if (heartbeat === undefined) return undefined;
  const { cpuBusyBasisPoints, load1Centi, memoryTotalMb, memoryAvailableMb, runningContainers } = heartbeat;
  const integers = [cpuBusyBasisPoints, load1Centi, memoryTotalMb, memoryAvailableMb, runningContainers];
  const texts = [heartbeat.agentVersion, heartbeat.certificateSerial];
  const fits =
    integers.every((value) => value <= integerMax) &&
    texts.every((text) => text.length <= textLengthMax && !text.includes("\0")) &&
    heartbeat.spoolDepth >= 0n &&
    heartbeat.spoolOldestMs >= 0n &&
    heartbeat.spoolOldestMs < 100n * BigInt(yearMs) &&
    heartbeat.wallClockMs >= 0n &&
    heartbeat.wallClockMs < 1_000n * BigInt(yearMs) &&
    heartbeat.disciplinedMs >= 0n &&
    heartbeat.disciplinedMs < 1_000n * BigInt(yearMs) &&
    (heartbeat.spoolId === "" || isUuid(heartbeat.spoolId));
  return fits ? heartbeat : undefined;
}

/** Reads a presence message: whether the host is connected to the broker; undefined when malformed. */
export function readPresence(payload: Uint8Array): boolean | undefined {
  return decode(() => NodePresence.decode(payload))?.online;
}

function decode<T>(decoder: () => T): T | undefined {
  try {
    return decoder();
  } catch {
    return undefined;
  }
}

const clockSkewMsMax = 2_000;
const telemetryLagMsMax = 5 * 60_000;
/** Below this share a file system counts as full. */
const availableShareMin = 0.05;

/**
 * The conditions that a heartbeat shows; messages are rounded so that they change rarely.
 *
 * @param skewBeforeMs what the heartbeat before showed; undefined: there was none
 */
export function conditionsOf(
  { heartbeat, receivedAtMs }: ReceivedHeartbeat,
  skewBeforeMs: number | undefined,
): HostCondition[] {
  const conditions: HostCondition[] = [];
  const skewMs = clockSkewMs({ heartbeat, receivedAtMs });
  // Of what we left unread for a while it only seems so: twice in a row, and the clock is slow.
  const mayBeLate = seemsSlow({ heartbeat, receivedAtMs }) && (skewBeforeMs ?? 0) <= clockSkewMsMax;
  if (Math.abs(skewMs) > clockSkewMsMax && !mayBeLate) {
    const seconds = Math.round(Math.abs(skewMs) / 1_000);
    const direction = skewMs > 0 ? "behind" : "ahead of";
    conditions.push({ kind: "ClockSkew", message: `The host's clock is ${seconds} s ${direction} ours.` });
  }
  const lagMs = heartbeat.spoolOldestMs === 0n ? 0 : receivedAtMs - Number(heartbeat.spoolOldestMs);
  if (heartbeat.spoolDepth > 0n && lagMs > telemetryLagMsMax) {
    const since = new Date(Number(heartbeat.spoolOldestMs)).toISOString().slice(0, 16).replace("T", " ");
    conditions.push({ kind: "TelemetryLag", message: `Samples since ${since} UTC wait on the host.` });
  }
  const full = heartbeat.filesystems.filter(
    ({ responsive, totalBytes, availableBytes }) =>
      responsive && totalBytes > 0n && Number(availableBytes) < availableShareMin * Number(totalBytes),
  );
  const reasons = [
    ...(full.length > 0
      ? [
          `Less than 5 % is free on ${full
            .map((fs) => fs.name.slice(0, textLengthMax))
            .toSorted()
            .join(", ")}.`,
        ]
      : []),
    ...(heartbeat.spoolOverLimit ? ["Unsent samples take more room than they may, and cannot be merged further."] : []),
  ];
  if (reasons.length > 0) conditions.push({ kind: "StorageFull", message: withoutNul(reasons.join(" ")) });
  if (heartbeat.spoolDamagedFiles.length > 0) conditions.push(spoolDamaged(heartbeat));
  return conditions;
}

/** Raised until an operator has taken the files away, e.g. after looking for what could not be read. */
function spoolDamaged({ spoolDamagedFiles, spoolLostBatches }: Heartbeat): HostCondition {
  const files = spoolDamagedFiles.slice(0, filesNamedMax).map((name) => name.slice(0, textLengthMax));
  const lost = `${spoolLostBatches} batches could not be read out of`;
  const message = `The store of samples was damaged: ${lost} ${files.join(", ")} in the agent's directory.`;
  return { kind: "SpoolDamaged", message: withoutNul(message) };
}

/** PostgreSQL has no NUL in texts. */
function withoutNul(text: string): string {
  return text.replaceAll("\0", "");
}

/**
 * How far the host's wall clock is behind ours (negative: ahead), ms. An agent with sessions has learned our clock from
 * quick exchanges, and compares by itself; of another one it includes the way here and how long we left it unread.
 */
export function clockSkewMs({
  heartbeat,
  receivedAtMs,
}: Pick<ReceivedHeartbeat, "heartbeat" | "receivedAtMs">): number {
  const ours = knowsOurClock(heartbeat) ? Number(heartbeat.disciplinedMs) : receivedAtMs;
  return ours - Number(heartbeat.wallClockMs);
}

/** Whether the host's clock looks slow by the time at which we read the heartbeat. */
export function seemsSlow(beat: Pick<ReceivedHeartbeat, "heartbeat" | "receivedAtMs">): boolean {
  return !knowsOurClock(beat.heartbeat) && clockSkewMs(beat) > clockSkewMsMax;
}

function knowsOurClock({ synchronised, disciplinedMs }: Heartbeat): boolean {
  return synchronised && disciplinedMs > 0n;
}
