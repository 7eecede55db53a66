/** The name of a task: "UPID:node:pid:pstart:starttime:type:id:user:". */
export interface Upid {
  readonly node: string;
  readonly pid: number;
  /** Start of the process in clock ticks since boot: tells it from a later one of the same pid. */
  readonly processStart: bigint;
  /** Seconds since 1970 UTC. */
  readonly startedAtSeconds: number;
  readonly type: string;
  /** The guest, or whatever else the task is about. */
  readonly id: string;
}

/** Parses a UPID; undefined when it is none. */
export function parseUpid(text: string): Upid | undefined {
  const [, node, pid, start, time, type, id] =
    /^UPID:([a-zA-Z0-9][a-zA-Z0-9-]*):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8}):([^:\s]+):([^:\s]*):[^:\s]+:$/u.exec(
      text,
    ) ?? [];
  if (node === undefined || pid === undefined || start === undefined) return undefined;
  if (time === undefined || type === undefined || id === undefined) return undefined;
  return {
    node,
    pid: Number.parseInt(pid, 16),
    processStart: BigInt(`0x${start}`),
    startedAtSeconds: Number.parseInt(time, 16),
    type,
    id,
  };
}

/** The tasks that `/var/log/pve/tasks/active` says are running; lines of finished ones are passed over. */
export function parseRunningTasks(text: string): Upid[] {
  return text.split("\n").flatMap((line) => {
    const [, upid, finished] = /^(\S+)\s+(0|1)(?:\s.*)?$/u.exec(line) ?? [];
    const parsed = upid === undefined || finished !== "0" ? undefined : parseUpid(upid);
    return parsed === undefined ? [] : [parsed];
  });
}
