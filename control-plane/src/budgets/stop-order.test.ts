import fc from "fast-check";
import { expect, test } from "vitest";
import { stopOrder } from "./stop-order.ts";

test("least important first, the unlabelled count as nought, the younger before the older", () => {
  const pod = (id: string, priority?: string) => ({ id, labels: priority === undefined ? {} : { priority } });
  const pods = [pod("1", "100"), pod("2"), pod("3", "-5"), pod("4", "soon"), pod("5", "7")];
  expect(stopOrder(pods).map(({ id }) => id)).toEqual(["3", "4", "2", "5", "1"]);
});

test("every pod once, whatever the labels are, and in the same order however they come", () => {
  const pods = fc.uniqueArray(
    fc.record({
      id: fc.uuid(),
      labels: fc.dictionary(fc.constantFrom("priority", "tier"), fc.oneof(fc.string(), fc.integer().map(String))),
    }),
    { selector: ({ id }) => id },
  );
  fc.assert(
    fc.property(pods, (all) => {
      const order = stopOrder(all);
      expect(order.map(({ id }) => id).sort()).toEqual(all.map(({ id }) => id).sort());
      expect(stopOrder(all.toReversed())).toEqual(order);
    }),
  );
});
