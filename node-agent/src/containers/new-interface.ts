import { parseProperties } from "../pct/parse-pct-config.ts";
import { networkOf } from "./observed-container.ts";
import type { ObservedContainer } from "./observed-container.ts";
import type { Step } from "./plan-step.ts";

const NETWORK = "--net0=";

/** Whether a step makes a running container's eth0 anew, as Proxmox does for another MAC or name. */
export function givesNewInterface({ invocations }: Step, observed: ObservedContainer): boolean {
  if (observed.where !== "here" || !observed.running) return false;
  const present = networkOf(observed.config);
  return invocations.some(({ args }) =>
    args.some((word) => {
      if (!word.startsWith(NETWORK)) return false;
      const wanted = parseProperties(word.slice(NETWORK.length), "name");
      return ["name", "hwaddr"].some((key) => present.get(key) !== wanted.get(key));
    }),
  );
}
