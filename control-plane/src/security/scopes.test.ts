import fc from "fast-check";
import { expect, test } from "vitest";
import {
  includesPlatformRole,
  platformRoles,
  scopes,
  scopesInBoth,
  scopesOfRoles,
  tenantRoles,
  type Scope,
} from "./scopes.ts";

const table = [
  ["owner", "READ WRITE ADMIN BILLING PROVISIONING SECURITY"],
  ["admin", "READ WRITE ADMIN BILLING PROVISIONING SECURITY"],
  ["billing", "READ BILLING"],
  ["member", "READ WRITE PROVISIONING"],
  ["viewer", "READ"],
] as const;

test.each(table)("%s may %s", (role, expected) => {
  expect([...scopesOfRoles("USER", role)].toSorted()).toEqual(expected.split(" ").toSorted());
});

test("a stranger may nothing, an operator neither money nor security, an administrator everything", () => {
  expect([...scopesOfRoles("USER", undefined)]).toEqual([]);
  expect([...scopesOfRoles("OPERATOR", undefined)].toSorted()).toEqual(["PROVISIONING", "READ", "WRITE"]);
  expect([...scopesOfRoles("ADMINISTRATOR", undefined)].toSorted()).toEqual([...scopes].toSorted());
});

test("a token never does more than it was given, nor more than its user may now", () => {
  fc.assert(
    fc.property(
      fc.subarray([...scopes]),
      fc.constantFrom(...platformRoles),
      fc.constantFrom(undefined, ...tenantRoles),
      (given, platformRole, role) => {
        const now = scopesOfRoles(platformRole, role);
        const acting = scopesInBoth(new Set<Scope>(given), now);
        expect([...acting].every((scope) => given.includes(scope) && now.has(scope))).toBe(true);
        expect(given.filter((scope) => now.has(scope)).every((scope) => acting.has(scope))).toBe(true);
      },
    ),
  );
});

test("an administrator is an operator, not the other way round", () => {
  expect(includesPlatformRole("ADMINISTRATOR", "OPERATOR")).toBe(true);
  expect(includesPlatformRole("OPERATOR", "ADMINISTRATOR")).toBe(false);
  expect(includesPlatformRole("USER", "OPERATOR")).toBe(false);
});
