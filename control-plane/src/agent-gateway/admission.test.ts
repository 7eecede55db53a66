import { expect, test } from "vitest";
import { createAdmission } from "./admission.ts";

const limits = { openingMax: 2, waitingMax: 2, waitMs: 60_000 };

test("who finds no place waits for one, in turn; a place is given back once", async () => {
  const admission = createAdmission(limits, () => 0);
  const [one] = [await admission.enter(), await admission.enter()];
  const order: string[] = [];
  const third = admission.enter().then(() => order.push("third"));
  const fourth = admission.enter().then(() => order.push("fourth"));
  await Promise.resolve();
  expect(order).toEqual([]);
  one();
  one();
  await third;
  expect(order).toEqual(["third"]);
  void fourth;
});

test("too many who wait are sent away for a random while", async () => {
  const admission = createAdmission({ ...limits, waitingMax: 0 }, () => 0.5);
  const [one] = [await admission.enter(), await admission.enter()];
  await expect(admission.enter()).rejects.toMatchObject({ reason: "GATEWAY_BUSY", retryAfterMs: 2_750 });
  one();
  await expect(admission.enter()).resolves.toBeTypeOf("function");
});

test("who has waited for too long is sent away, and has no turn any more", async () => {
  const admission = createAdmission({ openingMax: 1, waitingMax: 5, waitMs: 5 }, () => 0);
  const leave = await admission.enter();
  await expect(admission.enter()).rejects.toMatchObject({ reason: "GATEWAY_BUSY" });
  leave();
  // The place was not given to somebody who is gone.
  await expect(admission.enter()).resolves.toBeTypeOf("function");
});
