/** Who asked for a session, and when. */
export interface HelloTrace {
  /** ms since 1970 UTC. */
  readonly atMs: number;
  readonly machineId: string;
  /** New at each boot, so two running hosts have two. */
  readonly bootId: string;
}

/** What is known of a node's sessions before a new one begins. */
export interface SessionHistory {
  /** Since when two agents with this identity were seen; undefined: they were not. */
  readonly duplicateSinceMs: number | undefined;
  /** Times at which a live session was displaced. */
  readonly displacementsMs: readonly number[];
  readonly hellos: readonly HelloTrace[];
  /** Machine that enrolled. */
  readonly machineId: string | null;
  /** Whether a session is alive now. */
  readonly connected: boolean;
}

/** What becomes of a request for a session. */
export interface HelloVerdict {
  readonly admitted: boolean;
  /** `raise`: from now on two agents are presumed; `clear`: no longer. */
  readonly condition: "raise" | "clear" | "keep";
  readonly displacementsMs: readonly number[];
  readonly hellos: readonly HelloTrace[];
}

const displacementWindowMs = 60_000;
const displacementsMax = 3;
const helloWindowMs = 120_000;
const hellosMax = 20;

/**
 * Decides about a request for a session. A newer session displaces the older one, but two live agents
 * with one identity (a cloned host) would do so for ever: the third displacement within a minute ends
 * both. They are refused until their machine ids differ (then the machine that enrolled is let in) or
 * only one of them still asks.
 */
export function judgeHello(known: SessionHistory, me: HelloTrace): HelloVerdict {
  const earlier = known.hellos.filter((hello) => me.atMs - hello.atMs < helloWindowMs);
  const hellos = [...earlier.filter((hello) => !isSame(hello, me)), me].slice(-hellosMax);
  const recent = known.displacementsMs.filter((atMs) => me.atMs - atMs < displacementWindowMs);
  if (known.duplicateSinceMs === undefined) {
    const displacementsMs = known.connected ? [...recent, me.atMs] : recent;
    const raised = displacementsMs.length >= displacementsMax;
    return {
      admitted: !raised,
      condition: raised ? "raise" : "keep",
      displacementsMs: raised ? [] : displacementsMs,
      hellos,
    };
  }
  const others = earlier.filter((hello) => !isSame(hello, me));
  const toldApart = others.some((hello) => hello.machineId !== me.machineId);
  if (toldApart) return { admitted: me.machineId === known.machineId, condition: "keep", displacementsMs: [], hellos };
  // Twins that share even the boot id cannot be told from one agent in a crash loop: a minute's rest for both.
  const alone = others.length === 0 && me.atMs - known.duplicateSinceMs >= displacementWindowMs;
  return { admitted: alone, condition: alone ? "clear" : "keep", displacementsMs: [], hellos };
}

function isSame(a: HelloTrace, b: HelloTrace): boolean {
  return a.machineId === b.machineId && a.bootId === b.bootId;
}
