import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { anyText } from "../../../test/support/any-text.ts";
import { masterKey, seal, unseal } from "./sealing.ts";

const key = masterKey(randomBytes(32));

describe("sealing", () => {
  test("opens what it sealed, and never seals twice alike", () => {
    fc.assert(
      fc.property(anyText(), (text) => {
        const wellFormed = text.toWellFormed();
        const sealed = seal(key, "test", wellFormed);
        expect(unseal(key, "test", sealed)).toBe(wellFormed);
        expect(seal(key, "test", wellFormed)).not.toBe(sealed);
      }),
    );
  });

  test("refuses another purpose, another key and any changed part", () => {
    const sealed = seal(key, "authority", "secret");
    expect(() => unseal(key, "totp", sealed)).toThrow(/changed/);
    const other = masterKey(randomBytes(32));
    expect(() => unseal(other, "authority", sealed)).toThrow(new RegExp(`${key.id}.*${other.id}`));
    const parts = sealed.split(".");
    for (const index of [2, 3, 4]) {
      const changed = Buffer.from(parts[index] ?? "", "base64url");
      changed[0] = (changed[0] ?? 0) ^ 1;
      expect(() => unseal(key, "authority", parts.with(index, changed.toString("base64url")).join("."))).toThrow(
        /changed/,
      );
    }
    expect(() => unseal(key, "authority", "plain")).toThrow("not a sealed text");
    expect(() => masterKey(randomBytes(16))).toThrow("16 bytes");
  });
});
