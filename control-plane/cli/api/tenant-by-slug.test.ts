import { expect, test } from "vitest";
import { ApiRefusal } from "../errors.ts";
import { exitCodeOf, exitCodes } from "../exit-codes.ts";
import type { Api } from "./client.ts";
import { tenantBySlug } from "./tenant-by-slug.ts";

function answering(answer: (cursor: unknown) => unknown): Api {
  const call = async (_: string, { query }: { query: { cursor?: string } }) => ({ body: answer(query.cursor) });
  // Only lists of tenants are asked for.
  return { call } as unknown as Api;
}

const acme = { id: "019a0000-0000-7000-8000-000000000001", slug: "acme", name: "Acme", status: "active" };

test("a tenant is found by its slug on whatever page it is, and told when it is on none", async () => {
  const api = answering((cursor) =>
    cursor === undefined ? { data: [], nextCursor: "two" } : { data: [acme], nextCursor: null },
  );
  expect(await tenantBySlug(api, "acme")).toBe(acme.id);
  await expect(tenantBySlug(api, "ACME")).rejects.toThrow("There is no tenant ACME (see cloudpods tenants ls).");
});

test("who may not look has only his own", async () => {
  const problem = { status: 403, title: "", detail: "", error: "PLATFORM_ROLE_REQUIRED" };
  const api = answering(() => {
    throw new ApiRefusal(problem, "", undefined);
  });
  const refusal: unknown = await tenantBySlug(api, "theirs").catch((error: unknown) => error);
  expect(String(refusal)).toContain("theirs is neither the id of a tenant nor the slug of one of yours.");
  // As for a pod, a host or a plan that is not there.
  expect(exitCodeOf(refusal)).toBe(exitCodes.notFound.code);
});
