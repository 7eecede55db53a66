import type { Logger } from "pino";
import type { Database } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { dispatchCommands } from "./dispatch-commands.ts";
import type { GatewayMetrics } from "./gateway-metrics.ts";
import type { LiveSession } from "./live-session.ts";

/** What the dispatcher needs. */
export interface DispatcherOptions {
  readonly db: Database;
  readonly hints: Hints;
  readonly log: Logger;
  readonly metrics: GatewayMetrics;
  /** By node. */
  readonly sessions: ReadonlyMap<string, LiveSession>;
}

/** Looks for the commands of nodes that may have some. */
export interface Dispatcher {
  /** Looks for commands of a node soon; nodes without a session here are left to other replicas. */
  wake(nodeId: string): void;
}

/** Nodes of one transaction. */
const nodesAtOnce = 200;
/** A row that was locked is free again after about this time. */
const lockedRetryMs = 5;

/** One transaction at a time for the whole replica; what becomes due meanwhile shares the next one. */
export function createDispatcher(options: DispatcherOptions, stopped: AbortSignal): Dispatcher {
  const { db, hints, log, metrics, sessions } = options;
  const dirty = new Set<string>();
  let dispatching = false;

  const wake = (nodeId: string): void => {
    if (!sessions.has(nodeId) || stopped.aborted) return;
    dirty.add(nodeId);
    // In a microtask, so that hints that came together share a transaction.
    if (!dispatching) queueMicrotask(() => void dispatch());
  };
  const dispatch = async (): Promise<void> => {
    if (dispatching) return;
    dispatching = true;
    try {
      while (dirty.size > 0 && !stopped.aborted) {
        const batch = [...dirty].slice(0, nodesAtOnce);
        for (const nodeId of batch) dirty.delete(nodeId);
        const live = batch.flatMap((nodeId) => sessions.get(nodeId) ?? []);
        if (live.length > 0) await dispatchTo(live);
      }
    } catch (error) {
      log.warn({ err: error }, "commands could not be dispatched; the next look finds them");
    } finally {
      dispatching = false;
    }
  };
  const dispatchTo = async (live: readonly LiveSession[]): Promise<void> => {
    const round = await dispatchCommands(db, live);
    for (const waitedMs of round.waitedMs) metrics.dispatchSeconds.observe(waitedMs / 1_000);
    for (const commandId of round.superseded) hints.send("commands_finished", commandId);
    if (round.notReached.length > 0) setTimeout(() => round.notReached.forEach(wake), lockedRetryMs).unref();
  };
  return { wake };
}
