import fc from "fast-check";
import { expect, test } from "vitest";
import { advance, backoffMs, giveUp } from "./advance-task.ts";
import { notNeeded, stepAfter, type Saga, type Step, type StepOutcome } from "./saga.ts";
import { isFinished, type Task } from "./task.ts";

const step = (name: string, attemptsMax = 3): Step => ({
  name,
  percent: 50,
  attemptsMax,
  begin: () => Promise.reject(new Error("not called")),
});
const saga: Saga = {
  type: "create",
  deadlineMs: 1_000,
  steps: [step("one"), step("two")],
  undo: [step("undo-two"), step("undo-one")],
  finish: () => Promise.resolve(),
};
const task = (change: Partial<Task> = {}): Task => ({
  id: "t",
  tenantId: "n",
  podId: "p",
  type: "create",
  state: "running",
  step: "one",
  input: {},
  commandId: null,
  attempts: 0,
  deadlineAt: new Date(0),
  percent: 0,
  cancelRequestedAt: null,
  errorCode: null,
  errorMessage: null,
  lastSeq: 1,
  requestedBy: "user:u",
  requestId: null,
  workerId: "w",
  createdAt: new Date(0),
  updatedAt: new Date(0),
  finishedAt: null,
  ...change,
});
const apply = (before: Task, outcome: StepOutcome): Task => {
  const current = [...saga.steps, ...saga.undo].find(({ name }) => name === before.step);
  if (current === undefined) throw new Error(before.step);
  const change = advance(saga, before, current, outcome, 0.5);
  return {
    ...before,
    state: change.end ?? change.state,
    step: change.step,
    attempts: change.attempts,
    commandId: change.commandId,
    percent: change.percent,
  };
};

const outcomes = fc.oneof(
  fc.constant<StepOutcome>({ kind: "done", message: "" }),
  fc.constant<StepOutcome>({ kind: "wait", commandId: "c", nodeId: "n", message: "" }),
  fc.constant<StepOutcome>({ kind: "retry", code: "R", message: "" }),
  fc.constant<StepOutcome>({ kind: "fail", code: "F", message: "" }),
);

test("whatever the steps answer, a task that is not kept waiting ends", () => {
  fc.assert(
    fc.property(fc.array(outcomes, { minLength: 60, maxLength: 60 }), (script) => {
      let current = task();
      for (const outcome of script) {
        if (isFinished(current.state)) break;
        // An answer to a wait must follow it, as a command finishes once.
        current = apply(current, outcome.kind === "wait" ? { kind: "done", message: "" } : outcome);
      }
      expect(isFinished(current.state)).toBe(true);
    }),
  );
});

test("success needs every step, failure takes back every step", () => {
  const done: StepOutcome = { kind: "done", message: "" };
  const second = apply(task(), done);
  expect(second).toMatchObject({ state: "running", step: "two" });
  expect(apply(second, done)).toMatchObject({ state: "succeeded", percent: 100 });
  const undoing = apply(second, { kind: "fail", code: "F", message: "" });
  expect(undoing).toMatchObject({ state: "compensating", step: "undo-two" });
  const last = apply(undoing, done);
  expect(last).toMatchObject({ state: "compensating", step: "undo-one" });
  expect(apply(last, done).state).toBe("failed");
});

test("a cancelled task ends as cancelled once all is taken back, and as failed when that fails", () => {
  const cancelled = task({ state: "compensating", step: "undo-one", cancelRequestedAt: new Date(0) });
  expect(apply(cancelled, { kind: "done", message: "" }).state).toBe("cancelled");
  expect(apply(cancelled, { kind: "fail", code: "F", message: "" }).state).toBe("failed");
});

test("tries of a step end", () => {
  let current = task();
  const retry: StepOutcome = { kind: "retry", code: "R", message: "" };
  current = apply(apply(current, retry), retry);
  expect(current).toMatchObject({ state: "running", attempts: 2 });
  expect(apply(current, retry).state).toBe("compensating");
});

test("the backoff grows to a bound and is never zero", () => {
  fc.assert(
    fc.property(fc.nat(60), fc.integer({ min: 0, max: 999 }), (attempt, thousandths) => {
      const wait = backoffMs(attempt, thousandths / 1_000);
      expect(wait).toBeGreaterThanOrEqual(250);
      expect(wait).toBeLessThanOrEqual(60_000);
    }),
  );
});

test("a saga without undo ends at once when it is given up", () => {
  const plain: Saga = { ...saga, undo: [] };
  expect(giveUp(plain, task(), { code: "F", message: "m" })).toMatchObject({ end: "failed", error: { code: "F" } });
  expect(stepAfter(plain, "two")).toBeUndefined();
});

test("a task that waits goes from where its step begins to where the next one does, and back to nowhere", () => {
  const of = (name: string, percent: number): Step => ({ ...step(name), percent });
  const sized: Saga = { ...saga, steps: [of("one", 10), of("two", 70)], undo: [of("undo-one", 0)] };
  const waits: StepOutcome = { kind: "wait", commandId: "c", nodeId: "n", message: "Working" };
  const [one, two] = sized.steps;
  expect(advance(sized, task(), one, waits, 0)).toMatchObject({ percent: 10, span: { from: 10, to: 70 } });
  const later = task({ step: "two", percent: 70 });
  expect(advance(sized, later, two ?? one, waits, 0)).toMatchObject({ percent: 70, span: { from: 70, to: 100 } });
  // Asked once more: what the first try has shown stays.
  expect(advance(sized, task({ percent: 40 }), one, waits, 0)).toMatchObject({
    percent: 40,
    span: { from: 10, to: 70 },
  });
  const back = task({ state: "compensating", step: "undo-one", percent: 40 });
  expect(advance(sized, back, of("undo-one", 0), waits, 0)).toMatchObject({ percent: 40, span: { from: 40, to: 40 } });
});

test("what is told is of the step that ended, and of a step without work nothing is told but the end", () => {
  const one = step("one");
  expect(advance(saga, task(), one, { kind: "done", message: "One is done" }, 0)).toMatchObject({
    step: "two",
    about: "one",
    message: "One is done",
  });
  expect(advance(saga, task(), one, notNeeded, 0)).toMatchObject({ step: "two", message: undefined });
  expect(advance(saga, task({ step: "two" }), step("two"), notNeeded, 0)).toMatchObject({
    end: "succeeded",
    message: "Done",
  });
  expect(advance(saga, task(), one, { kind: "fail", code: "F", message: "No" }, 0)).toMatchObject({
    step: "undo-two",
    about: "one",
    message: "No",
  });
});
