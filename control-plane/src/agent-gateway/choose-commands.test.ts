import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { chooseCommands, type OpenCommand } from "./choose-commands.ts";

const command = (id: string, op: string, revision: number, changes: Partial<OpenCommand> = {}): OpenCommand => ({
  id,
  podId: "pod",
  op,
  generation: 1n,
  revision: BigInt(revision),
  pending: true,
  inFlight: false,
  ...changes,
});

describe("what a session is told next", () => {
  test("of undelivered wishes of one kind only the newest", () => {
    const open = [command("a", "ensure_power", 1), command("b", "ensure_power", 2), command("c", "ensure_power", 3)];
    expect(chooseCommands(open, 8)).toEqual({ superseded: ["a", "b"], send: ["c"] });
  });

  test("what a pod is and whether it runs do not overtake each other", () => {
    const open = [command("a", "ensure_container", 1), command("b", "ensure_power", 2)];
    expect(chooseCommands(open, 8)).toEqual({ superseded: [], send: ["a", "b"] });
  });

  test("a pod that shall be gone needs nothing before", () => {
    const open = [
      command("a", "ensure_container", 1),
      command("b", "ensure_power", 2),
      command("c", "ensure_absent", 3),
    ];
    expect(chooseCommands(open, 8)).toEqual({ superseded: ["a", "b"], send: ["c"] });
  });

  test("delivered wishes and deeds are never taken back", () => {
    const open = [
      command("a", "ensure_power", 1, { pending: false }),
      command("b", "backup", 2),
      command("c", "ensure_power", 3),
    ];
    expect(chooseCommands(open, 8)).toEqual({ superseded: [], send: ["a", "b", "c"] });
  });

  test("a pod's commands go by revision even where ids say otherwise", () => {
    const open = [
      command("a", "ensure_power", 2),
      command("b", "reboot", 3, { podId: "other" }),
      command("c", "ensure_container", 1),
    ];
    expect(chooseCommands(open, 8).send).toEqual(["c", "b", "a"]);
  });

  const anyOpen = fc
    .array(
      fc.record({
        podId: fc.constantFrom("p", "q", null),
        op: fc.constantFrom("ensure_container", "ensure_power", "ensure_absent", "reboot", "backup"),
        generation: fc.bigInt({ min: 1n, max: 2n }),
        revision: fc.bigInt({ min: 1n, max: 9n }),
        state: fc.constantFrom("pending", "sent", "in flight"),
      }),
      { maxLength: 20 },
    )
    .map((rows) =>
      rows.map(({ state, ...row }, index): OpenCommand => ({
        ...row,
        id: String(index).padStart(2, "0"),
        pending: state === "pending",
        inFlight: state === "in flight",
      })),
    );

  test("the window holds, nothing is sent twice, lost, or out of a pod's order", () => {
    fc.assert(
      fc.property(anyOpen, fc.integer({ min: 1, max: 30 }), (open, windowMax) => {
        const { superseded, send } = chooseCommands(open, windowMax);
        const inFlight = open.filter((row) => row.inFlight).length;
        expect(send.length).toBeLessThanOrEqual(Math.max(0, windowMax - inFlight));
        expect(new Set([...send, ...superseded]).size).toBe(send.length + superseded.length);
        const byId = new Map(open.map((row) => [row.id, row]));
        for (const podId of ["p", "q"]) {
          const keys = send.flatMap((id) => {
            const row = byId.get(id);
            return row?.podId === podId ? [row.generation * 100n + row.revision] : [];
          });
          expect(keys).toEqual(keys.toSorted((a, b) => Number(a - b)));
        }
        // With room for all, everything open is either sent, overtaken or in flight, and a pod's newest wish of a kind is never lost.
        if (windowMax === 30) expect(send.length + superseded.length + inFlight).toBe(open.length);
        for (const id of superseded) expect(byId.get(id)?.pending).toBe(true);
      }),
    );
  });
});
