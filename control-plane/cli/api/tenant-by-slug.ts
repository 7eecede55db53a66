import { DomainError } from "@cloudpods/shared/errors";
import { ApiRefusal } from "../errors.ts";
import type { Api } from "./client.ts";
import type { AnswerOf } from "./endpoints.ts";

const pageSize = 200;

/** The id of any tenant, for operators. @throws DomainError not-found when there is none of that slug, or one may not look */
export async function tenantBySlug(api: Api, slug: string): Promise<string> {
  let cursor: string | undefined;
  do {
    const { data, nextCursor } = await pageOf(api, slug, cursor);
    const found = data.find((tenant) => tenant.slug === slug);
    if (found !== undefined) return found.id;
    cursor = nextCursor ?? undefined;
  } while (cursor !== undefined);
  throw none(`There is no tenant ${slug} (see cloudpods tenants ls).`);
}

async function pageOf(api: Api, slug: string, cursor: string | undefined): Promise<AnswerOf<"listTenants">> {
  try {
    return (await api.call("listTenants", { query: { limit: pageSize, cursor } })).body;
  } catch (error) {
    if (error instanceof ApiRefusal && error.problem.status === 403)
      throw none(`${slug} is neither the id of a tenant nor the slug of one of yours.`);
    throw error;
  }
}

function none(message: string): DomainError {
  return new DomainError("not-found", "TENANT_UNKNOWN", message);
}
