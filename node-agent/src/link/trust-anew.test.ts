import { pino } from "pino";
import { expect, test } from "vitest";
import { AgentError } from "../agent-error.ts";
import { createTrustAnew } from "./trust-anew.ts";

const log = pino({ level: "silent" });
const hourMs = 3_600_000;

function scenario(renew: () => Promise<void>) {
  let nowMs = 5;
  let renewals = 0;
  const trustAnew = createTrustAnew({
    renewCertificate: async () => {
      renewals += 1;
      await renew();
    },
    monotonicMs: () => nowMs,
    log,
  });
  return { trustAnew, renewals: () => renewals, later: (ms: number) => void (nowMs += ms) };
}

test("a host renews at once, and then once an hour at most", async () => {
  const { trustAnew, renewals, later } = scenario(() => Promise.resolve());
  expect([await trustAnew(), await trustAnew()]).toEqual([true, false]);
  later(hourMs - 1);
  expect(await trustAnew()).toBe(false);
  later(1);
  expect(await trustAnew()).toBe(true);
  expect(renewals()).toBe(2);
});

test("a renewal that fails is tried again, not before half a minute and less and less often", async () => {
  const away = new AgentError("CONTROL_PLANE_UNREACHABLE", "nobody answers", { retryable: true });
  const { trustAnew, renewals, later } = scenario(() => Promise.reject(away));
  expect([await trustAnew(), await trustAnew()]).toEqual([false, false]);
  expect(renewals()).toBe(1);
  later(29_999);
  await trustAnew();
  expect(renewals()).toBe(1);
  later(30_000 + 60_000);
  await trustAnew();
  expect(renewals()).toBe(2);
  for (let minute = 0; minute < 24 * 60; minute += 1) {
    later(60_000);
    await trustAnew();
  }
  // A day of waits that grow to an hour and a half minute at most.
  expect(renewals()).toBeGreaterThan(2 + 23);
  expect(renewals()).toBeLessThan(200);
});
