import { type ApiClient, until } from "./api-client.ts";
import type { DemoHost } from "./demo-hosts.ts";
import { type DrainAnswer, isOver, lookAtDrain, whyNot } from "./fleet-drain.ts";

/** What dies in the middle of the drain: a host with all that runs on it, or only its agent for a moment. */
export type Killed = "host" | "agent";

/** What the outage is played with. */
export interface OutageStage {
  readonly admin: ApiClient;
  readonly hosts: readonly DemoHost[];
  readonly kill: Killed;
  readonly say: (line: string) => void;
}

/** A drain through which another host failed. */
export interface DrainThroughOutage {
  readonly drain: DrainAnswer;
  readonly killed: DemoHost;
  /** From the cut of its power until the control plane called it offline; null where only the agent was away. */
  readonly offlineAfterMs: number | null;
  /** Places that the drain held on it at that moment and has found elsewhere. */
  readonly replanned: number;
}

const drainTimeoutMs = 900_000;
/** The killed agent is away for so long; its host is not offline yet then. */
const agentAwayMs = 5_000;
const offlineTimeoutMs = 60_000;
/**
 * The host has no power for so long at least. Pods that stood still for it already go on there when it is back; they
 * would go back to where they were two minutes after it was offline.
 */
const powerAwayMs = 60_000;

/** Drains a host. As soon as pods are on their way, the host that most of them are to get to fails, and comes back. */
export async function drainThroughOutage(stage: OutageStage, drained: DemoHost): Promise<DrainThroughOutage> {
  const { admin, hosts } = stage;
  const order = { reason: "memory is replaced", deadlineSeconds: 1_800, maxParallel: 4 };
  await admin.request("POST", `/api/nodes/${drained.name}/drain`, order);
  const { target, held } = await until("the first pod moves", drainTimeoutMs, async () => {
    const drain = await lookAtDrain(admin, drained.name);
    if (isOver(drain)) throw new Error(`the drain ended before anything moved: ${drain.state}, ${whyNot(drain)}`);
    return mostWanted(drain);
  });
  const killed = hosts.find(({ name }) => name === target);
  if (killed === undefined) throw new Error(`the drain moves pods to ${target}, which is none of the hosts`);
  const offlineAfterMs = await (stage.kill === "host" ? loseHost : loseAgent)(stage, drained, killed);
  const drain = await until(`the drain of ${drained.name} ends`, drainTimeoutMs, async () => {
    const now = await lookAtDrain(admin, drained.name);
    return isOver(now) ? now : undefined;
  });
  const elsewhere = drain.pods.filter(({ name, target: end }) => held.includes(name) && end !== target);
  return { drain, killed, offlineAfterMs, replanned: elsewhere.length };
}

/** Of the hosts that pods are on their way to the one with the most places, and the pods that have them. */
function mostWanted({ pods }: DrainAnswer): { readonly target: string; readonly held: readonly string[] } | undefined {
  const underWay = pods.flatMap(({ state, target }) => (state === "moving" && target !== null ? [target] : []));
  const held = (host: string) => pods.filter(({ target }) => target === host).map(({ name }) => name);
  const target = [...new Set(underWay)].toSorted((a, b) => held(b).length - held(a).length).at(0);
  return target === undefined ? undefined : { target, held: held(target) };
}

async function loseAgent({ say }: OutageStage, _drained: DemoHost, killed: DemoHost): Promise<null> {
  await killed.killAgent();
  say(`kill -9 of the agent of ${killed.name}, which pods are on their way to`);
  await new Promise((resolve) => setTimeout(resolve, agentAwayMs));
  await killed.startAgent();
  return null;
}

/** The host is without power until the drain holds no place on it any more. @returns after how many ms it was offline */
async function loseHost(stage: OutageStage, drained: DemoHost, killed: DemoHost): Promise<number> {
  const { admin, say } = stage;
  const cutAt = Date.now();
  await killed.cutPower();
  say(`power cut on ${killed.name}, which pods are on their way to`);
  const offlineAfterMs = await until(`${killed.name} is offline`, offlineTimeoutMs, async () => {
    const { data } = await admin.request<{ data: { name: string; stateSince: string }[] }>(
      "GET",
      "/api/nodes?state=offline",
    );
    const offline = data.find(({ name }) => name === killed.name);
    return offline === undefined ? undefined : Date.parse(offline.stateSince) - cutAt;
  });
  say(`${killed.name} is offline after ${(offlineAfterMs / 1_000).toFixed(1)} s`);
  await until(`the drain of ${drained.name} does without ${killed.name}`, drainTimeoutMs, async () => {
    const drain = await lookAtDrain(admin, drained.name);
    const isHeld = drain.pods.some(({ state, target }) => state === "claimed" && target === killed.name);
    return !isHeld && Date.now() - cutAt >= powerAwayMs ? true : undefined;
  });
  await killed.boot();
  say(`${killed.name} is back after ${Math.round((Date.now() - cutAt) / 1_000)} s`);
  return offlineAfterMs;
}
