import fc from "fast-check";
import { expect, test } from "vitest";
import { packHints } from "./hints.ts";

test("packed hints stay below the server's limit and none is lost or doubled", () => {
  const hint = fc.stringMatching(/^[a-z_]{1,20} [\x21-\x7e]{1,200}$/);
  fc.assert(
    fc.property(fc.array(hint, { maxLength: 300 }), (hints) => {
      const payloads = packHints("sender", hints);
      for (const payload of payloads) expect(payload.length).toBeLessThan(8_000);
      expect(payloads.flatMap((payload) => payload.split("\n").slice(1))).toEqual(hints);
      expect(payloads.every((payload) => payload.startsWith("sender\n"))).toBe(true);
    }),
  );
});
