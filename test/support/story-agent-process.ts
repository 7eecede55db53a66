/**
 * The metering half of an agent on a host of a story: real sampling core, spool and telemetry over MQTT, on
 * a kernel and clocks that are told. It works until it is killed; started by story-agent.ts, with which it
 * talks over the channel of `fork`.
 */
import { flushCompileCache } from "node:module";
import { setImmediate as breathe, setTimeout as sleep } from "node:timers/promises";
import { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { createDisciplinedClock } from "../../node-agent/src/clock/disciplined-clock.ts";
import { openSpool } from "../../node-agent/src/spool/spool.ts";
import { type TelemetryCredentials, createTelemetry } from "../../node-agent/src/telemetry/telemetry.ts";
import { meddleWith } from "./meddled-spool.ts";
import { bootAt, createStorySampler } from "./story-sampler.ts";
import { randomOf } from "./usage-truth/random.ts";
import { at, wallOffMs } from "./usage-truth/story.ts";
import { type StoryOptions, tellStory } from "./usage-truth/tell-story.ts";

/** What an agent is started with. */
export interface AgentWork {
  readonly options: StoryOptions;
  readonly host: number;
  readonly spoolPath: string;
  readonly brokerUrl: string;
  readonly credentials: TelemetryCredentials;
  /** The story has gone so far here. */
  readonly doneMs: number;
  /** Where the story goes on, which says in which boot. */
  readonly nextMs: number;
  /** Seed of the network's mischief. */
  readonly seed: number;
}

/** What an agent is told. */
export type AgentOrder = { readonly begin: AgentWork } | { readonly goTo: number } | { readonly welcome: string };
/** What it says. `hello` asks for the watermark of a spool. */
export type AgentWord =
  | "loaded"
  | { readonly hello: string }
  | { readonly at: number; readonly depth: number; readonly meddled: Readonly<Record<string, number>> };

/** How many batches wait unacknowledged before an agent that is online lets the network catch up. */
const depthMax = 45;
/** Offers are repeated in real time, which is that much shorter than 30 s. */
const haste = 20;
const tell = (word: AgentWord): void => void process.send?.(word);

function run(work: AgentWork): { goTo: (ms: number) => Promise<void>; welcome: (watermark: bigint) => void } {
  const story = tellStory(work.options);
  const host = story.hosts[work.host];
  if (host === undefined) throw new Error(`there is no host ${work.host}`);
  const boot = bootAt(host, work.nextMs);
  let nowMs = Math.max(work.doneMs, boot.zeroMs);
  const log = { info: () => undefined, warn: () => undefined };
  const clock = createDisciplinedClock({
    bootId: boot.bootId,
    monotonicMs: () => nowMs - boot.zeroMs,
    wallMs: () => nowMs + wallOffMs(host, nowMs),
  });
  const network = { ...clock, monotonicMs: () => performance.now() * haste };
  const spool = openSpool({ path: work.spoolPath, clock: network, limitBytes: host.spoolLimitBytes, log });
  const meddling = meddleWith(spool, randomOf(work.seed));
  const sampler = createStorySampler({ story, host: work.host, boot, clock, spool });
  const telemetry = createTelemetry({
    nodeId: host.nodeId,
    bootId: boot.bootId,
    brokerUrl: work.brokerUrl,
    credentials: work.credentials,
    heartbeatIntervalMs: 600_000,
    collectHeartbeat: async () =>
      await Promise.resolve(
        Heartbeat.fromPartial({ bootId: boot.bootId, spoolId: spool.spoolId(), synchronised: true }),
      ),
    spool: meddling.spool,
    log,
  });
  let session: "none" | "asked" | "open" = "none";
  let wasOffline = false;
  const isOnline = (): boolean => nowMs >= boot.contactMs && at(host.offline, nowMs) === undefined;

  /** Learns the time, asks for a session if there is none, and lets the network catch up. */
  async function meetControlPlane(): Promise<void> {
    if (wasOffline) telemetry.updateCredentials(work.credentials); // connects at once
    wasOffline = false;
    const atMs = clock.monotonicMs();
    clock.recordExchange({ sentMonotonicMs: atMs - 20, receivedMonotonicMs: atMs + 20, serverTimeMs: nowMs });
    if (session === "none") {
      session = "asked";
      tell({ hello: spool.spoolId() });
    }
    if (session === "open") telemetry.offerNow();
    while (spool.status().depth > depthMax) await sleep(5);
  }
  return {
    async goTo(toMs) {
      for (let lookMs = sampler.nextLookMs(nowMs); lookMs <= toMs; lookMs = sampler.nextLookMs(nowMs)) {
        nowMs = lookMs;
        sampler.look(nowMs);
        if (isOnline()) await meetControlPlane();
        else wasOffline = session === "open";
        await breathe();
      }
      nowMs = toMs;
      tell({ at: toMs, depth: spool.status().depth, meddled: meddling.counts });
    },
    welcome(watermark) {
      session = "open";
      spool.startSession(watermark);
      telemetry.start();
    },
  };
}

let running: ReturnType<typeof run> | undefined;
process.on("message", (order: AgentOrder) => {
  if ("begin" in order) running = run(order.begin);
  else if ("welcome" in order) running?.welcome(BigInt(order.welcome));
  else void running?.goTo(order.goTo);
});
process.on("disconnect", () => process.exit(0));
// It ends by a kill.
flushCompileCache();
tell("loaded");
