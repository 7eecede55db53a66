import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { judgeHello, type HelloTrace, type SessionHistory } from "./duplicate-agent.ts";

const quiet: SessionHistory = {
  duplicateSinceMs: undefined,
  displacementsMs: [],
  hellos: [],
  machineId: "m1",
  connected: false,
};
const hello = (atMs: number, machineId = "m1", bootId = "b1"): HelloTrace => ({ atMs, machineId, bootId });

/** Plays requests one after the other; an admitted session lives until the next request. */
function play(
  requests: readonly HelloTrace[],
  start: SessionHistory = quiet,
): { admitted: boolean[]; end: SessionHistory } {
  let known = start;
  const admitted = requests.map((me) => {
    const verdict = judgeHello(known, me);
    const duplicateSinceMs =
      verdict.condition === "raise" ? me.atMs : verdict.condition === "clear" ? undefined : known.duplicateSinceMs;
    known = { ...known, ...verdict, duplicateSinceMs, connected: verdict.admitted };
    return verdict.admitted;
  });
  return { admitted, end: known };
}

describe("two agents with one identity", () => {
  test("the third displacement within a minute ends both and refuses both", () => {
    const { admitted, end } = play([
      hello(0),
      hello(1_000, "m1", "b2"),
      hello(2_000),
      hello(3_000, "m1", "b2"),
      hello(4_000),
      hello(5_000, "m1", "b2"),
    ]);
    expect(admitted).toEqual([true, true, true, false, false, false]);
    expect(end.duplicateSinceMs).toBe(3_000);
  });

  test("displacements that are spread over minutes are a bad network, not a clone", () => {
    const requests = Array.from({ length: 20 }, (_, index) => hello(index * 31_000));
    expect(play(requests).admitted).not.toContain(false);
  });

  test("once the machine ids differ the enrolled machine is let in and the other refused", () => {
    const raised: SessionHistory = { ...quiet, duplicateSinceMs: 0, hellos: [hello(0), hello(500, "m1", "b2")] };
    const { admitted, end } = play([hello(1_000, "m2", "b3"), hello(2_000), hello(3_000, "m2", "b3")], raised);
    expect(admitted).toEqual([false, true, false]);
    expect(end.duplicateSinceMs).toBe(0);
  });

  test("whoever is left alone for two minutes is let in", () => {
    const raised: SessionHistory = { ...quiet, duplicateSinceMs: 0, hellos: [hello(0), hello(500, "m1", "b2")] };
    const { admitted, end } = play([hello(60_000), hello(121_000)], raised);
    expect(admitted).toEqual([false, true]);
    expect(end.duplicateSinceMs).toBeUndefined();
  });

  test("of any two differing machines at most the enrolled one is let in while the condition lasts", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ waitMs: fc.integer({ min: 1, max: 20_000 }), clone: fc.boolean() }), { maxLength: 40 }),
        (steps) => {
          let atMs = 1_000;
          let known: SessionHistory = { ...quiet, duplicateSinceMs: 0, hellos: [hello(0), hello(0, "m2", "b2")] };
          for (const { waitMs, clone } of steps) {
            atMs += waitMs;
            const me = clone ? hello(atMs, "m2", "b2") : hello(atMs);
            const verdict = judgeHello(known, me);
            const heardOther = known.hellos.some(
              (other) => other.machineId !== me.machineId && atMs - other.atMs < 120_000,
            );
            if (clone && heardOther) expect(verdict.admitted).toBe(false);
            if (verdict.condition === "clear") return;
            known = { ...known, ...verdict };
          }
        },
      ),
    );
  });
});
