/** An open command of a node, as far as its order matters. */
export interface OpenCommand {
  readonly id: string;
  /** Null for commands about the host. */
  readonly podId: string | null;
  /** As in the protocol, e.g. "ensure_power". */
  readonly op: string;
  readonly generation: bigint;
  readonly revision: bigint;
  /** Not yet given to any session. */
  readonly pending: boolean;
  /** Written to the present session already. */
  readonly inFlight: boolean;
}

/** What is to be done about the open commands of a node. */
export interface CommandChoice {
  /** Overtaken before anyone saw them. */
  readonly superseded: readonly string[];
  /** To be written to the session, in this order. */
  readonly send: readonly string[];
}

const wishes = new Set(["ensure_container", "ensure_power", "ensure_absent"]);

/**
 * Chooses what a session is told next. Of several undelivered wishes of one kind for a pod only the newest
 * is worth sending, and none when the pod shall be gone; different kinds (what it is, whether it runs)
 * do not overtake each other. Commands of a pod go in the order of its placements and wishes. `open` is
 * in the order of ids; `windowMax` bounds what is unfinished in the session.
 */
export function chooseCommands(open: readonly OpenCommand[], windowMax: number): CommandChoice {
  const superseded = new Set(open.filter((command) => isOvertaken(command, open)).map((command) => command.id));
  const room = Math.max(0, windowMax - open.filter((command) => command.inFlight).length);
  const send = inPodOrder(open)
    .filter((command) => !command.inFlight && !superseded.has(command.id))
    .slice(0, room);
  return { superseded: [...superseded], send: send.map((command) => command.id) };
}

function isOvertaken(command: OpenCommand, open: readonly OpenCommand[]): boolean {
  if (!command.pending || command.podId === null || !wishes.has(command.op)) return false;
  return open.some(
    (other) =>
      other.podId === command.podId &&
      (other.op === command.op || other.op === "ensure_absent") &&
      wishes.has(other.op) &&
      isBefore(command, other),
  );
}

/** Ids are made by the clocks of several replicas; generation and revision are the truth about one pod. */
function inPodOrder(open: readonly OpenCommand[]): OpenCommand[] {
  const ofPod = new Map<string, OpenCommand[]>();
  for (const command of open) {
    if (command.podId === null) continue;
    const others = ofPod.get(command.podId) ?? [];
    ofPod.set(command.podId, [...others, command]);
  }
  const ordered = new Map(
    [...ofPod].map(([podId, commands]) => [podId, commands.toSorted((a, b) => (isBefore(a, b) ? -1 : 1))]),
  );
  return open.map((command) => (command.podId === null ? command : (ordered.get(command.podId)?.shift() ?? command)));
}

function isBefore(a: OpenCommand, b: OpenCommand): boolean {
  if (a.generation !== b.generation) return a.generation < b.generation;
  if (a.revision !== b.revision) return a.revision < b.revision;
  return a.id < b.id;
}
