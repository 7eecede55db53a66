import { CommandFailure } from "./failure.ts";
import type { Host } from "./layout.ts";

let interrupted = false;
let wake: (() => void) | undefined;

/** Time since this process began, ms. `performance` would have to be loaded first. */
export function uptimeMs(): number {
  return process.uptime() * 1000;
}

/** From now on SIGTERM and SIGINT make the next `pause` of this process throw `received interrupt`. */
export function listenForInterrupts(): void {
  for (const signal of ["SIGTERM", "SIGINT", "SIGQUIT"] as const) {
    process.on(signal, () => {
      interrupted = true;
      wake?.();
    });
  }
}

/**
 * Lets the time pass that an operation takes on a real host, scaled by the host's speed, and ends
 * early at an interrupt.
 * @throws CommandFailure `received interrupt`, once for each burst of signals
 */
export async function pause(host: Host, realMs: number): Promise<void> {
  await pauseUnscaled(realMs * host.settings.speed);
}

/** Like `pause`, in this machine's milliseconds. */
export async function pauseUnscaled(ms: number): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  if (!interrupted && ms > 0) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    wake = undefined;
  }
  if (!interrupted) return;
  interrupted = false;
  throw new CommandFailure("received interrupt");
}
