import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Logger } from "pino";
import { noticesLoss } from "./lost-connections.ts";

/**
 * What a hint is about, and whose id its key is:
 * `node_commands`, `node_queries`, `node_sessions`: a node that has something new to be told, asked, or ended;
 * `query_answers`: a question that was answered; `commands_finished`: a command that ended;
 * `tasks`: a task that can go on; `task_events`: a task whose story has a new line.
 */
export type HintTopic =
  | "node_commands"
  | "node_queries"
  | "node_sessions"
  | "query_answers"
  | "commands_finished"
  | "tasks"
  | "task_events";

/**
 * Tells all replicas that something may be worth looking at. A hint carries no fact and may be lost:
 * whoever listens polls as well, only slower.
 */
export interface Hints {
  /** Call it after the commit that made something worth looking at. Never throws, never waits. */
  send(topic: HintTopic, key: string): void;
  /** Calls back for hints of every replica, this one included; returns the end of listening. */
  on(topic: HintTopic, callback: (key: string) => void): () => void;
  /** Resolves when the connection listens for the first time. */
  readonly listening: Promise<void>;
  close(): Promise<void>;
}

/** Options of `openHints`. */
export interface HintsOptions {
  /** Connection string; the login needs no rights. */
  readonly url: string;
  readonly log: Logger;
}

const channel = "cloudpods_hints";
/** NOTIFY takes a lock of the whole database through its commit, so a replica sends rarely and much. */
const sendEveryMs = 5;
/** The server refuses payloads of 8000 bytes and more. */
const payloadBytesMax = 7_500;
const waitingMax = 20_000;
const keyPattern = /^[\x21-\x7e]{1,200}$/;

/** Opens a connection of its own, outside every transaction, and keeps it open until `close`. */
export function openHints(options: HintsOptions): Hints {
  const replica = randomBytes(6).toString("hex");
  const listeners = new Map<string, Set<(key: string) => void>>();
  const waiting = new Set<string>();
  let sending = false;
  let notBeforeMs = 0;

  const deliver = (hint: string): void => {
    const [topic = "", key = ""] = hint.split(" ");
    for (const callback of listeners.get(topic) ?? []) {
      try {
        callback(key);
      } catch (error) {
        options.log.error({ err: error, topic }, "a listener of hints threw");
      }
    }
  };
  const link = keepListening(options, (payload) => {
    const [sender, ...hints] = payload.split("\n");
    // Our own were delivered when they were sent.
    if (sender !== replica) hints.forEach(deliver);
  });
  const flush = async (): Promise<void> => {
    if (sending) return;
    sending = true;
    while (waiting.size > 0) {
      await delay(Math.max(0, notBeforeMs - performance.now()));
      notBeforeMs = performance.now() + sendEveryMs;
      const payloads = packHints(replica, waiting);
      waiting.clear();
      await link.notify(payloads).catch((error: unknown) => {
        options.log.debug({ err: error }, "hints were lost; the slow polls will find what they named");
      });
    }
    sending = false;
  };
  return {
    send(topic, key) {
      if (!keyPattern.test(key)) throw new TypeError("the key of a hint is one short word");
      const hint = `${topic} ${key}`;
      deliver(hint);
      if (waiting.size < waitingMax) waiting.add(hint);
      if (!sending) queueMicrotask(() => void flush());
    },
    on(topic, callback) {
      const callbacks = listeners.get(topic) ?? new Set();
      listeners.set(topic, callbacks.add(callback));
      return () => callbacks.delete(callback);
    },
    listening: link.listening,
    close: () => link.close(),
  };
}

/** Lines `topic key` packed below the server's limit, each payload headed by its sender. */
export function packHints(sender: string, hints: Iterable<string>): string[] {
  const payloads: string[] = [];
  let current = "";
  for (const hint of hints) {
    if (current === "" || current.length + 1 + hint.length > payloadBytesMax) {
      if (current !== "") payloads.push(current);
      current = `${sender}\n${hint}`;
    } else current += `\n${hint}`;
  }
  if (current !== "") payloads.push(current);
  return payloads;
}

interface Link {
  notify(payloads: readonly string[]): Promise<void>;
  readonly listening: Promise<void>;
  close(): Promise<void>;
}

const probeEveryMs = 15_000;

/** One connection that LISTENs and NOTIFYs; a dead one is noticed within 20 s and replaced. */
function keepListening(options: HintsOptions, onPayload: (payload: string) => void): Link {
  const stopped = new AbortController();
  const firstListening = Promise.withResolvers<void>();
  let client: pg.Client | undefined;

  const listenOnce = async (): Promise<void> => {
    const next = new pg.Client({
      ...noticesLoss(options.url),
      application_name: "cloudpods-hints",
      connectionTimeoutMillis: 5_000,
      query_timeout: 5_000,
    });
    const lost = new AbortController();
    next.on("error", () => lost.abort());
    next.on("end", () => lost.abort());
    const over = AbortSignal.any([lost.signal, stopped.signal]);
    try {
      await next.connect();
      next.on("notification", (message) => onPayload(message.payload ?? ""));
      await next.query(`LISTEN ${channel}`);
      client = next;
      firstListening.resolve();
      for (;;) {
        await delay(probeEveryMs, over);
        if (over.aborted) break;
        await next.query("SELECT 1");
      }
    } finally {
      client = undefined;
      await next.end().catch(() => {});
    }
  };
  const run = (async () => {
    for (let failures = 0; !stopped.signal.aborted; failures++) {
      const startedMs = performance.now();
      await listenOnce().catch((error: unknown) => {
        options.log.warn({ err: error }, "the connection for hints failed");
      });
      if (performance.now() - startedMs > 60_000) failures = 0;
      await delay(Math.random() * Math.min(5_000, 100 * 2 ** Math.min(failures, 10)), stopped.signal);
    }
  })();
  return {
    listening: firstListening.promise,
    async notify(payloads) {
      if (client === undefined) throw new Error("no connection for hints");
      await client.query(`SELECT pg_notify('${channel}', p) FROM unnest($1::text[]) AS p`, [payloads]);
    },
    async close() {
      stopped.abort();
      await run;
      firstListening.resolve();
    },
  };
}

/** Waits; ends early when the signal is aborted. */
async function delay(ms: number, signal?: AbortSignal): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {});
}
