import fc from "fast-check";
import { expect, test } from "vitest";
import { isDrainOver, nextDrainState, type DrainState } from "@cloudpods/shared/drain-lifecycle";
import { decideDrain, type DrainAction, type DrainFacts, type DrainPodFacts } from "./decide-drain.ts";

type World = { -readonly [K in keyof DrainFacts]: DrainFacts[K] };
type PodWorld = { -readonly [K in keyof DrainPodFacts]: DrainPodFacts[K] };

const podWith = (podId: string, changes: Partial<PodWorld> = {}): PodWorld => ({
  podId,
  state: "pending",
  isBusy: false,
  isGone: false,
  move: undefined,
  hasMoveFailed: false,
  target: "good",
  canRestore: true,
  isWaiting: false,
  canBeRecalled: true,
  wasAborted: false,
  failedTargets: 0,
  reason: undefined,
  canWait: false,
  isDue: false,
  isHopeless: false,
  ...changes,
});

const drainOf = (pods: PodWorld[], changes: Partial<World> = {}): World => ({
  kind: "drain",
  state: "planning",
  onNoCapacity: "fail",
  onDeadline: "leave",
  onNoBackup: "keep",
  maxParallel: 2,
  deadlineMs: 1_000,
  isCancelled: false,
  isHostBack: false,
  claimsLeft: 0,
  pods,
  ...changes,
});

interface Chances {
  readonly place: number;
  readonly success: number;
  readonly cordon: number;
}

/** Carries actions out in a world where things go well or badly by chance. @returns the state that the drain has then */
function carryOut(world: World, actions: readonly DrainAction[], chances: Chances, random: () => number): DrainState {
  let state: DrainState = world.state;
  for (const action of actions) {
    if (action.kind === "advance") {
      state = nextDrainState(state, action.event) ?? state;
      continue;
    }
    // The world's own pods are mutable.
    const pod = world.pods.find(({ podId }) => podId === action.podId) as PodWorld;
    if (action.kind === "claim") {
      expect([pod.state, pod.isBusy]).toEqual(["pending", false]);
      const found = random() < chances.place;
      Object.assign(pod, found ? { state: "claimed", move: "reserved", target: "good" } : { state: "blocked" });
    } else if (action.kind === "release") {
      expect(pod.state).toBe("claimed");
      if (action.state === "pending") expect(pod.target).toBe("bad");
      Object.assign(pod, { state: action.state, move: "released" });
    } else if (action.kind === "start") {
      if (world.kind === "drain") expect([pod.state, pod.target]).toEqual(["claimed", "good"]);
      expect([world.isCancelled, world.isHostBack]).toEqual([false, false]);
      const isHopeless = world.kind === "evacuation" && random() > chances.place;
      Object.assign(
        pod,
        isHopeless ? { state: "blocked", isHopeless } : { state: "moving", move: "moving", isWaiting: random() < 0.5 },
      );
    } else if (action.kind === "give-up") {
      expect([pod.state, pod.isHopeless, pod.isBusy, pod.isGone]).toEqual(["blocked", true, false, false]);
      expect([world.onNoBackup, world.isCancelled, world.isHostBack]).toEqual(["mark-lost", false, false]);
      expect(world.pods.filter(({ state: one }) => one === "moving" || one === "pending")).toEqual([]);
      Object.assign(pod, { state: "lost", isHopeless: false });
    } else if (action.kind === "abort") {
      expect([pod.state, pod.isWaiting || (world.isHostBack && pod.canBeRecalled)]).toEqual(["moving", true]);
      Object.assign(pod, { move: "undone", isWaiting: false, wasAborted: true });
    } else {
      if (pod.state === "moving" && action.state === "pending") pod.failedTargets += 1;
      pod.state = action.state;
    }
  }
  return state;
}

function happen(world: World, chances: Chances, random: () => number): void {
  for (const pod of world.pods as PodWorld[]) {
    if (pod.state === "moving" && pod.move === "moving" && random() < 0.5)
      Object.assign(pod, { move: random() < chances.success ? "moved" : "undone", isWaiting: false });
    if (random() < 0.3) pod.isWaiting = false;
    if (random() < 0.2) pod.canBeRecalled = false;
    if (pod.target === "shaken") pod.target = random() < 0.5 ? "good" : "bad";
    else if (pod.state === "claimed" && random() < chances.cordon) pod.target = random() < 0.5 ? "shaken" : "bad";
    if (random() < 0.3) pod.isBusy = false;
    if (pod.state !== "moving" && pod.state !== "moved" && random() < 0.02) pod.isGone = true;
  }
}

/** Evenly between 0 and 1; `fc.double` gives bits by chance, which is nearly always nearly nothing. */
const share = fc.integer({ min: 0, max: 1_000 }).map((thousandths) => thousandths / 1_000);

const worlds = fc.record({
  pods: fc.array(fc.record({ isBusy: fc.boolean(), canRestore: fc.boolean() }), { maxLength: 8 }),
  kind: fc.constantFrom("drain" as const, "evacuation" as const),
  onNoCapacity: fc.constantFrom("fail" as const, "partial" as const),
  onDeadline: fc.constantFrom("leave" as const, "stop-and-restore" as const),
  onNoBackup: fc.constantFrom("keep" as const, "mark-lost" as const),
  maxParallel: fc.integer({ min: 1, max: 4 }),
  cancelAt: fc.option(fc.integer({ min: 0, max: 40 }), { nil: undefined }),
  deadlineAt: fc.integer({ min: 5, max: 60 }),
  backAt: fc.option(fc.integer({ min: 0, max: 40 }), { nil: undefined }),
  chances: fc.record({
    place: share,
    success: share,
    cordon: share.map((half) => half / 2),
  }),
  seed: fc.infiniteStream(share),
});

test("whatever happens a drain ends, never moves too many at once, and never one without a good place", () => {
  fc.assert(
    fc.property(worlds, ({ pods, chances, seed, cancelAt, deadlineAt, backAt, ...how }) => {
      const random = (): number => seed.next().value ?? 0;
      const world = drainOf(
        pods.map((pod, index) => podWith(`p${index}`, pod)),
        { ...how, deadlineMs: deadlineAt },
      );
      let state: DrainState = "planning";
      for (let now = 0; !isDrainOver(state); now++) {
        expect(now).toBeLessThan(400);
        if (now === cancelAt) world.isCancelled = true;
        if (now === backAt && how.kind === "evacuation") world.isHostBack = true;
        state = carryOut(world, decideDrain(world, now), chances, random);
        if (state === "moving") world.state = "moving";
        expect(world.pods.filter((pod) => pod.state === "moving").length).toBeLessThanOrEqual(world.maxParallel);
        happen(world, chances, random);
      }
      // Nothing is kept or runs on when it is over.
      expect(world.pods.filter((pod) => ["claimed", "moving", "pending"].includes(pod.state))).toEqual([]);
      if (state === "drained")
        expect(world.pods.every((pod) => ["moved", "gone", "lost"].includes(pod.state))).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test("every place is claimed before the first pod moves", () => {
  const world = drainOf([podWith("a", { state: "claimed", move: "reserved" }), podWith("b", { isBusy: true })]);
  expect(decideDrain(world, 0)).toEqual([]);
  const all = drainOf([podWith("a", { state: "claimed" }), podWith("b")]);
  expect(decideDrain(all, 0)).toEqual([{ kind: "claim", podId: "b" }]);
});

test("without a place for one, nothing moves or all the others, as was asked", () => {
  const pods = () => [podWith("a", { state: "claimed" }), podWith("b", { state: "blocked" })];
  expect(decideDrain(drainOf(pods()), 0)).toEqual([
    { kind: "release", podId: "a", state: "left", why: expect.objectContaining({ code: "NO_PLACE_FOR_ALL" }) },
  ]);
  expect(decideDrain(drainOf(pods(), { onNoCapacity: "partial" }), 0)).toMatchObject([{ event: "all-placed" }]);
});

test("a place on a host that takes no pods any more is given back and looked for anew", () => {
  const world = drainOf([podWith("a", { state: "claimed", target: "bad" })], { state: "moving" });
  expect(decideDrain(world, 0)).toEqual([{ kind: "release", podId: "a", state: "pending" }]);
});

test("a place on a host that is shaken is kept, and nobody moves there until it is itself again", () => {
  const pods = (target: PodWorld["target"]) => [
    podWith("a", { state: "claimed", target }),
    podWith("b", { state: "claimed" }),
  ];
  const moving = (target: PodWorld["target"]) => drainOf(pods(target), { state: "moving" });
  expect(decideDrain(moving("shaken"), 0)).toMatchObject([{ kind: "start", podId: "b" }]);
  expect(decideDrain(moving("good"), 0)).toMatchObject([{ podId: "a" }, { podId: "b" }]);
  // Not beyond the time that there is.
  const stopping = { ...moving("shaken"), onDeadline: "stop-and-restore" as const };
  expect(decideDrain(stopping, 2_000)).toMatchObject([{ kind: "release", podId: "a", state: "left" }]);
});

test("when time is up pods are left, or those with a place are stopped and restored there", () => {
  const pods = () => [
    podWith("a", { state: "claimed" }),
    podWith("b", { state: "claimed", canRestore: false }),
    podWith("c"),
  ];
  const why = expect.objectContaining({ code: "DEADLINE_PASSED" });
  expect(decideDrain(drainOf(pods(), { state: "moving" }), 2_000)).toEqual([
    { kind: "release", podId: "a", state: "left", why },
    { kind: "release", podId: "b", state: "left", why },
    { kind: "settle", podId: "c", state: "left", why },
  ]);
  const stopping = drainOf(pods(), { state: "moving", onDeadline: "stop-and-restore" });
  expect(decideDrain(stopping, 2_000)).toEqual([
    { kind: "release", podId: "b", state: "left", why },
    { kind: "settle", podId: "c", state: "left", why },
  ]);
  const [a] = pods();
  expect(decideDrain({ ...stopping, pods: a === undefined ? [] : [a] }, 2_000)).toEqual([
    { kind: "start", podId: "a", byArchive: true },
  ]);
});

test("a move that waits for its host is ended by a cancellation and by a deadline that leaves pods; one under way is not", () => {
  const pods = () => [
    podWith("a", { state: "moving", move: "moving", isWaiting: true }),
    podWith("b", { state: "moving", move: "moving" }),
  ];
  const abort = [{ kind: "abort", podId: "a" }];
  const moving = drainOf(pods(), { state: "moving" });
  expect(decideDrain(moving, 0)).toEqual([]);
  expect(decideDrain({ ...moving, isCancelled: true }, 0)).toEqual(abort);
  expect(decideDrain(moving, 2_000)).toEqual(abort);
  expect(decideDrain({ ...moving, onDeadline: "stop-and-restore" }, 2_000)).toEqual([]);
  const ended = podWith("a", { state: "moving", move: "undone", wasAborted: true });
  expect(decideDrain(drainOf([ended], { state: "moving", isCancelled: true }), 0)).toEqual([
    { kind: "settle", podId: "a", state: "left" },
  ]);
});

test("an empty host is drained at once, and one that copies are still on is not yet", () => {
  expect(decideDrain(drainOf([], { state: "moving" }), 0)).toMatchObject([{ event: "emptied" }]);
  const moved = [podWith("a", { state: "moved", move: "moved" })];
  expect(decideDrain(drainOf(moved, { state: "moving", claimsLeft: 1 }), 0)).toEqual([]);
  expect(decideDrain(drainOf(moved, { state: "moving", claimsLeft: 1 }), 2_000)).toMatchObject([{ event: "gave-up" }]);
});

test("a host that is back keeps its pods: what may be called back is, what has changed hands is carried to its end", () => {
  const pods = [
    podWith("a", { state: "moving", move: "moving" }),
    podWith("b", { state: "moving", move: "moving", canBeRecalled: false }),
    podWith("c"),
    podWith("d", { state: "blocked" }),
  ];
  const back = drainOf(pods, { kind: "evacuation", state: "moving", isHostBack: true });
  const left = { kind: "settle", state: "left", why: { code: "NODE_RETURNED" } };
  expect(decideDrain(back, 0)).toMatchObject([
    { kind: "abort", podId: "a" },
    { ...left, podId: "c" },
  ]);
  const ended = [
    podWith("a", { state: "moving", move: "undone", wasAborted: true }),
    podWith("e", { state: "moving", move: "undone" }),
  ];
  expect(decideDrain({ ...back, pods: ended }, 0)).toMatchObject([
    { ...left, podId: "a" },
    { ...left, podId: "e" },
  ]);
  const moved = [podWith("b", { state: "moved" }), podWith("c", { state: "left" })];
  expect(decideDrain({ ...back, pods: moved }, 0)).toMatchObject([{ event: "cancelled" }]);
});

test("a pod that has changed hands and could not be brought back is no success of its evacuation", () => {
  const pods = [podWith("a", { state: "moving", move: "moved", hasMoveFailed: true })];
  const settled = { kind: "settle", podId: "a" };
  expect(decideDrain(drainOf(pods, { kind: "evacuation", state: "moving" }), 0)).toEqual([
    { ...settled, state: "failed" },
  ]);
  expect(decideDrain(drainOf(pods, { state: "moving" }), 0)).toEqual([{ ...settled, state: "moved" }]);
});

test("what an evacuation had to call lost is in its outcome, however well all else went", () => {
  const lost = podWith("a", { state: "lost", reason: "NO_BACKUP" });
  const end = (...pods: PodWorld[]) => decideDrain(drainOf(pods, { kind: "evacuation", state: "moving" }), 0);
  expect(end(lost, podWith("b", { state: "moved", move: "moved" }))).toMatchObject([
    { event: "emptied", outcome: "No pod is left on the host; 1 pod is lost." },
  ]);
  expect(end(lost, podWith("b", { state: "blocked", reason: "NO_BACKUP" }))).toMatchObject([
    { event: "gave-up", outcome: "1 pod was not brought back: 1 NO_BACKUP; 1 pod is lost." },
  ]);
});

test("when time is up nothing moves by force either, if a pod has never had a place and all were to have one", () => {
  const pods = () => [podWith("a", { state: "claimed", move: "reserved" }), podWith("b", { isBusy: true })];
  const late = (world: PodWorld[]) => decideDrain(drainOf(world, { onDeadline: "stop-and-restore" }), 2_000);
  expect(late(pods())).toMatchObject([{ kind: "settle", podId: "b", state: "left", why: { code: "DEADLINE_PASSED" } }]);
  const [a = podWith("a")] = pods();
  const left = podWith("b", { state: "left", reason: "DEADLINE_PASSED" });
  expect(late([a, left])).toMatchObject([{ kind: "release", podId: "a", why: { code: "NO_PLACE_FOR_ALL" } }]);
  const released = podWith("a", { state: "left", move: "released", reason: "NO_PLACE_FOR_ALL" });
  expect(late([released, left])).toMatchObject([
    { event: "gave-up", outcome: "2 pods are still on the host: 1 DEADLINE_PASSED, 1 NO_PLACE_FOR_ALL." },
  ]);
  // One that has no way there by archive had a place.
  const noWay = podWith("b", { state: "left", move: "released", reason: "DEADLINE_PASSED" });
  expect(late([a, noWay])).toMatchObject([{ event: "all-placed" }]);
});

test("a place that is not there for now is looked for again until time is up, and the end names what stood in the way", () => {
  const pods = (changes: Partial<PodWorld> = {}) => [
    podWith("a", { state: "blocked", reason: "NO_CAPACITY", canWait: true, ...changes }),
    podWith("b", { state: "blocked", reason: "NO_BACKUP" }),
  ];
  const moving = (changes?: Partial<PodWorld>) => drainOf(pods(changes), { kind: "evacuation", state: "moving" });
  expect(decideDrain(moving(), 0)).toEqual([]);
  expect(decideDrain(moving({ isDue: true }), 0)).toEqual([{ kind: "settle", podId: "a", state: "pending" }]);
  const outcome = "2 pods were not brought back: 1 NO_BACKUP, 1 NO_CAPACITY.";
  expect(decideDrain(moving({ isDue: true }), 2_000)).toMatchObject([{ event: "gave-up", outcome }]);
  expect(decideDrain({ ...moving({ isDue: true }), isCancelled: true }, 0)).toMatchObject([{ event: "cancelled" }]);
});
