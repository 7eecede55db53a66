import type { DemoHost } from "../../tools/demo/demo-hosts.ts";
import type { Invocation } from "../simulated-host/host.ts";
import { until } from "./until.ts";

/** A moment in an agent's work: while the nth `pct` of a piece of work runs, or right after it has ended. */
export interface Moment {
  /** From 0. */
  readonly nth: number;
  readonly when: "during" | "after";
}

/** The moments of a piece of work in their order, without end. */
export function momentAt(index: number): Moment {
  return { nth: Math.floor(index / 2), when: index % 2 === 0 ? "during" : "after" };
}

/** How long every `pct` takes longer, so that "during" can be met. */
const stretchMs = 120;

/** Stretches every program of a host that changes something. */
export function stretchPrograms(host: DemoHost): void {
  host.simulated.setFaults([{ match: { program: "pct" }, effect: { kind: "delay", ms: stretchMs } }]);
}

/** Begins to watch the work that is about to be asked of a host. */
export async function watchWork(host: DemoHost): Promise<{
  /**
   * Kills the agent at the moment and starts it again.
   * @param lateMs how much later within the moment
   * @returns false when the work was over before: it has no such moment
   */
  killAt(moment: Moment, isOver: () => boolean, lateMs?: number): Promise<boolean>;
}> {
  const before = (await pctCalls(host)).length;
  return {
    async killAt({ nth, when }, isOver, lateMs = 0) {
      const isCome = await until(
        `the moment ${when} program ${nth + 1} on ${host.name}`,
        async () => {
          const call = (await pctCalls(host))[before + nth];
          if (call !== undefined && (when === "during" || call.endedAt !== undefined)) return { come: true };
          return isOver() ? { come: false } : undefined;
        },
        90_000,
      );
      if (!isCome.come) return false;
      if (lateMs > 0) await new Promise((resolve) => setTimeout(resolve, lateMs));
      await host.killAgent();
      await host.startAgent();
      return true;
    },
  };
}

async function pctCalls(host: DemoHost): Promise<Invocation[]> {
  return (await host.simulated.invocations()).filter(({ argv }) => argv[0] === "pct");
}
