import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keysDigest, mergeAuthorizedKeys } from "./authorized-keys.ts";
import { formatMarker, parseMarker, replaceMarker } from "./marker.ts";

const MARKER = fc.record({
  podId: fc.uuid(),
  fleetEpoch: fc.bigInt({ min: 0n, max: 10n ** 17n }),
  generation: fc.bigInt({ min: 0n, max: 10n ** 17n }),
  stage: fc.constantFrom("new" as const, "ready" as const),
  keys: fc.oneof(fc.constant("none"), fc.stringMatching(/^[0-9a-f]{16}$/u)),
});
const NOTE = fc.string({ maxLength: 40 }).filter((text) => !text.includes("cloudpods pod="));

describe("the owner's marker", () => {
  it("is found among what people wrote, and replaced without touching that", () => {
    fc.assert(
      fc.property(MARKER, MARKER, NOTE, (first, second, note) => {
        const description = replaceMarker(note, first);
        expect(parseMarker(description)).toEqual(first);
        const replaced = replaceMarker(description, second);
        expect(parseMarker(replaced)).toEqual(second);
        expect(replaced.split("\n").slice(1).join("\n")).toBe(note.replace(/\n+$/u, ""));
      }),
    );
  });

  it("two of them are none: nobody can tell whose the container is", () => {
    fc.assert(
      fc.property(MARKER, MARKER, (first, second) => {
        expect(parseMarker(`${formatMarker(first)}\n${formatMarker(second)}`)).toBeUndefined();
      }),
    );
  });

  it.each(["", "cloudpods", "cloudpods pod=x epoch=1 generation=1 stage=new keys=none"])("%j is none", (text) => {
    expect(parseMarker(text)).toBeUndefined();
  });
});

const KEY = fc.constantFrom("a", "b").map((letter) => `ssh-ed25519 ${letter.repeat(68)} me@there`);

describe("authorized_keys", () => {
  it("our block is replaced, other lines stay, and repeating changes nothing", () => {
    fc.assert(
      fc.property(
        fc.array(KEY),
        fc.array(KEY),
        fc.array(fc.stringMatching(/^[a-z -]{0,20}$/u)),
        (old, keys, others) => {
          const text = (list: string[]): string => list.map((key) => `${key}\n`).join("");
          const before = mergeAuthorizedKeys(text(others), text(old));
          const after = mergeAuthorizedKeys(before, text(keys));
          expect(mergeAuthorizedKeys(after, text(keys))).toBe(after);
          expect(mergeAuthorizedKeys(after, "").trim()).toBe(text(others).trim());
          for (const key of keys) expect(after).toContain(`${key}\n`);
        },
      ),
    );
  });

  it("only plain keys are taken", () => {
    expect(keysDigest([])).toBe("none");
    for (const key of [
      'command="rm -rf /" ssh-ed25519 AAAA',
      `ssh-ed25519 ${"A".repeat(68)}\nssh-rsa ${"B".repeat(68)}`,
      "ssh-dss AAAA",
      "",
    ]) {
      expect(() => keysDigest([key])).toThrow("ssh_authorized_keys is not acceptable");
    }
  });
});
