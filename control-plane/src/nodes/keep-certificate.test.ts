import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createLog } from "../platform/log.ts";
import type { KeyedCertificate } from "./certificate-authority.ts";
import { keepCertificate } from "./keep-certificate.ts";

const dayMs = 86_400_000;
const log = createLog({ level: "silent" });

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const certificate = (now: Date, serial: string): KeyedCertificate => ({
  pem: "",
  privateKeyPem: "",
  spkiSha256: "",
  serial,
  notBefore: now,
  notAfter: new Date(now.getTime() + 6 * dayMs),
});

test("a certificate is replaced after two thirds of its life, again and again, until stopped", async () => {
  let issued = 0;
  const kept = await keepCertificate({ issue: async (now) => certificate(now, String(issued++)), log });
  const renewed: string[] = [];
  kept.onRenewed((next) => renewed.push(next.serial));
  await vi.advanceTimersByTimeAsync(4 * dayMs - 1_000);
  expect(kept.current.serial).toBe("0");
  await vi.advanceTimersByTimeAsync(2_000);
  expect(kept.current.serial).toBe("1");
  await vi.advanceTimersByTimeAsync(4 * dayMs);
  expect(renewed).toEqual(["1", "2"]);
  kept.stop();
  await vi.advanceTimersByTimeAsync(30 * dayMs);
  expect(kept.current.serial).toBe("2");
});

test("another authority's is asked for at once, and what was asked of the former one does not come after it", async () => {
  let authority = "former";
  const waiting: PromiseWithResolvers<void>[] = [];
  const kept = await keepCertificate({
    async issue(now) {
      const signedBy = authority;
      if (waiting.length < 2) waiting.push(Promise.withResolvers());
      if (signedBy === "former" && waiting.length === 2) await waiting[1]?.promise;
      return certificate(now, signedBy);
    },
    log,
  });
  await vi.advanceTimersByTimeAsync(4 * dayMs + 1_000);
  authority = "next";
  kept.renewNow();
  waiting[1]?.resolve();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(kept.current.serial).toBe("next");
  // It is kept by one clock as before.
  expect(vi.getTimerCount()).toBe(1);
  kept.stop();
});

test("a failure is tried again each minute; the old one stays in use meanwhile", async () => {
  let tries = 0;
  const kept = await keepCertificate({
    async issue(now) {
      tries++;
      if (tries > 1 && tries < 4) throw new Error("no authority");
      return certificate(now, String(tries));
    },
    log,
  });
  await vi.advanceTimersByTimeAsync(4 * dayMs + 59_000);
  expect([kept.current.serial, tries]).toEqual(["1", 2]);
  await vi.advanceTimersByTimeAsync(62_000);
  expect([kept.current.serial, tries]).toEqual(["4", 4]);
  kept.stop();
});
