import fc from "fast-check";
import { expect, test } from "vitest";
import { signWebhook } from "./sign-webhook.ts";

test("a known signature, so that receivers written once keep working", () => {
  // printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac secret
  expect(signWebhook("secret", '{"a":1}', new Date("2026-01-01T00:00:00.900Z"))).toBe(
    "t=1767225600,v1=96a067a1c95eb143fc00b9097bcfcbcd5456adda508c443ff219748e764dbed7",
  );
});

test("another secret, body or second gives another signature", () => {
  // As long as real secrets: HMAC fills short keys up with noughts, so "a" and "a\0" are one key.
  const part = fc.stringMatching(/^[0-9a-f]{64}$/);
  fc.assert(
    fc.property(part, part, part, fc.integer({ min: 0, max: 4e9 }), (secret, body, other, seconds) => {
      const at = new Date(seconds * 1_000);
      const mac = (signed: string) => signed.split("v1=")[1];
      const signed = mac(signWebhook(secret, body, at));
      if (other !== secret) expect(mac(signWebhook(other, body, at))).not.toBe(signed);
      if (other !== body) expect(mac(signWebhook(secret, other, at))).not.toBe(signed);
      expect(mac(signWebhook(secret, body, new Date((seconds + 1) * 1_000)))).not.toBe(signed);
    }),
  );
});
