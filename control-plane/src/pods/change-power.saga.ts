import type { Saga } from "../tasks/saga.ts";
import { rebootStep, startStep, stopStep } from "./power-steps.ts";

/** A host that is away for so long has a fault of its own; the customer is told that the work failed. */
export const powerDeadlineMs = 1_800_000;

const nothingToDo = async (): Promise<void> => {
  await Promise.resolve();
};

/** Power changes and what comes down to them on the host. What is wanted was written with the request. */
export const powerSagas: readonly Saga[] = [
  { type: "start", deadlineMs: powerDeadlineMs, steps: [startStep(10)], undo: [], finish: nothingToDo },
  { type: "stop", deadlineMs: powerDeadlineMs, steps: [stopStep(10)], undo: [], finish: nothingToDo },
  { type: "restart", deadlineMs: powerDeadlineMs, steps: [rebootStep(10)], undo: [], finish: nothingToDo },
  { type: "suspend", deadlineMs: powerDeadlineMs, steps: [stopStep(10)], undo: [], finish: nothingToDo },
  { type: "resume", deadlineMs: powerDeadlineMs, steps: [startStep(10)], undo: [], finish: nothingToDo },
];
