import type { Hints } from "../platform/hints.ts";

/** Wakes those who carry out what was committed; a lost wake-up costs a poll's wait and nothing else. */
export interface PodHints {
  /** A task was queued, and perhaps a command for a host with it. */
  workQueued(taskId: string, nodeId: string | null): void;
}

/** Hints to all replicas. */
export function podHints(hints: Hints): PodHints {
  return {
    workQueued(taskId, nodeId) {
      hints.send("tasks", taskId);
      if (nodeId !== null) hints.send("node_commands", nodeId);
    },
  };
}
