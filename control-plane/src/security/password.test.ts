import { expect, test } from "vitest";
import { hashPassword, verifyPassword } from "./password.ts";

test("a password opens its own hash and no other; hashes of one password differ", async () => {
  const [first, second] = await Promise.all([
    hashPassword("correct horse battery"),
    hashPassword("correct horse battery"),
  ]);
  expect(first).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
  expect(first).not.toBe(second);
  expect(await verifyPassword("correct horse battery", first)).toBe(true);
  expect(await verifyPassword("correct horse batterY", first)).toBe(false);
  expect(await verifyPassword("correct horse battery", undefined)).toBe(false);
});

test("the same letters typed composed and decomposed are the same password", async () => {
  expect(await verifyPassword("me\u0301lange-123", await hashPassword("m\u00e9lange-123"))).toBe(true);
});

test("a PHC string of another argon2id implementation opens", async () => {
  // From the reference implementation: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1
  const reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
  expect(await verifyPassword("password", reference)).toBe(true);
});

test("more than the queue holds are told to come back", async () => {
  const cheap = `$argon2id$v=19$m=8,t=1,p=1$${"a".repeat(22)}$${"a".repeat(43)}`;
  const results = await Promise.allSettled(Array.from({ length: 80 }, () => verifyPassword("x", cheap)));
  const refused = results.filter((result) => result.status === "rejected");
  expect(refused).toHaveLength(80 - 66);
  expect(refused[0]?.reason).toMatchObject({ kind: "unavailable", code: "SIGN_IN_BUSY" });
  // and the place is free again afterwards
  expect(await verifyPassword("x", cheap)).toBe(false);
});

test("what is not such a string is a fault of ours", async () => {
  await expect(verifyPassword("x", "$2b$10$abc")).rejects.toThrow("PHC");
});
