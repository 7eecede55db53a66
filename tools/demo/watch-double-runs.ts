import { layoutOf } from "../../test/simulated-host/layout.ts";
import { allRunning } from "../../test/simulated-host/running-record.ts";

/** A simulated host that is watched. */
export interface WatchedHost {
  readonly name: string;
  readonly simulated: { readonly root: string };
}

/** What was seen. */
export interface DoubleRuns {
  readonly looks: number;
  /** Time during which any container ran on more than one host. */
  readonly seconds: number;
  /** Which ones, and where. */
  readonly seen: readonly string[];
}

const lookEveryMs = 100;

/**
 * Looks ten times a second at what really runs on the hosts: at their kernels, not at configurations, agents or the
 * database. Ids are unique in a fleet, so an id that runs on two hosts is one pod that runs twice.
 */
export function watchDoubleRuns(hosts: readonly WatchedHost[]): { stop(): DoubleRuns } {
  let looks = 0;
  let seconds = 0;
  let lastLookMs = performance.now();
  const seen = new Set<string>();
  const look = (): void => {
    const nowMs = performance.now();
    const found = findDoubleRuns(hosts);
    for (const one of found) seen.add(one);
    if (found.length > 0) seconds += (nowMs - lastLookMs) / 1_000;
    lastLookMs = nowMs;
    looks += 1;
  };
  const timer = setInterval(look, lookEveryMs);
  return {
    stop() {
      clearInterval(timer);
      look();
      return { looks, seconds: Math.round(seconds * 10) / 10, seen: [...seen] };
    },
  };
}

/** Containers that run on two hosts at this moment, as "<id> on <host> and <host>". */
export function findDoubleRuns(hosts: readonly WatchedHost[]): string[] {
  const first = new Map<number, { readonly host: WatchedHost; readonly startNs: bigint }>();
  return hosts.flatMap((host) =>
    livesOn(host).flatMap(({ vmid, startNs }) => {
      const other = first.get(vmid);
      if (other === undefined) {
        first.set(vmid, { host, startNs });
        return [];
      }
      // The hosts are looked at one after the other: a move between two looks is none of both at once.
      const isStillThere = livesOn(other.host).some((life) => life.vmid === vmid && life.startNs === other.startNs);
      return isStillThere ? [`${vmid} on ${other.host.name} and ${host.name}`] : [];
    }),
  );
}

function livesOn({ simulated }: WatchedHost) {
  return allRunning(layoutOf(simulated.root));
}
