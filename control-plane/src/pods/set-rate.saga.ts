import type { Saga, StepOutcome } from "../tasks/saga.ts";
import { commandStep } from "./command-steps.ts";
import { createWish } from "./provision-pod.saga.ts";

/** A host that is away for so long has a fault of its own; who wants the rate asks again. */
export const setRateDeadlineMs = 1_800_000;

/** The pod's network has the rate of its row; nothing else of it changes. */
export const setRate: Saga = {
  type: "set-rate",
  deadlineMs: setRateDeadlineMs,
  steps: [
    commandStep({
      name: "set-rate",
      percent: 10,
      waitingFor: "Changing the rate of the network",
      wish: createWish,
      async onSuccess(_context, pod, seen): Promise<StepOutcome> {
        const rate = seen?.rateLimitKibPerSecond;
        if (rate !== pod.rateLimitKibPerSecond) {
          const message = `The host has a rate of ${rate ?? "nothing"} instead of ${pod.rateLimitKibPerSecond} KiB/s`;
          return await Promise.resolve({ kind: "retry", code: "RATE_DIFFERS", message });
        }
        return { kind: "done", message: "The network has its rate" };
      },
    }),
  ],
  undo: [],
  async finish() {
    await Promise.resolve();
  },
};
