import { expect, test } from "vitest";
import { isAddressAllowed } from "./authenticate.ts";
import { credentialKindOf, newApiToken, newSecretToken } from "./secret-token.ts";

test.each([
  ["203.0.113.5", [], true],
  [undefined, [], true],
  ["203.0.113.5", ["203.0.113.0/24"], true],
  ["203.0.114.5", ["203.0.113.0/24"], false],
  ["203.0.113.5", ["203.0.113.5/32", "2001:db8::/32"], true],
  ["2001:db8::9", ["203.0.113.0/24", "2001:db8::/32"], true],
  ["2001:db9::9", ["2001:db8::/32"], false],
  [undefined, ["0.0.0.0/0"], false],
  ["nonsense", ["0.0.0.0/0"], false],
] as const)("the address %s is in %j: %s", (address, cidrs, allowed) => {
  expect(isAddressAllowed(address, cidrs)).toBe(allowed);
});

test("secrets tell by their form what they are, and nothing else does", () => {
  expect(credentialKindOf(newSecretToken().secret)).toBe("session");
  const token = newApiToken();
  expect(credentialKindOf(token.secret)).toBe("token");
  expect(token.secret.startsWith(token.prefix)).toBe(true);
  expect(token.prefix).toHaveLength(12);
  expect(["", "cpt_", "a".repeat(63), "A".repeat(64), `${"a".repeat(64)}\n`].map(credentialKindOf)).toEqual(
    Array(5).fill(undefined),
  );
});
