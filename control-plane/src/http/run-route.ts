import { DomainError } from "@cloudpods/shared/errors";
import type { Database, Transaction } from "../platform/database.ts";
import type { Admitted } from "./admit.ts";
import type { PublicContext, TenantContext } from "./context.ts";
import {
  claimKey,
  fingerprintOf,
  noTenantId,
  storeAnswer,
  type IdempotentRequest,
  type StoredAnswer,
} from "./idempotency.ts";
import { bigintAsText, type ReadRequest } from "./read-request.ts";
import type { Answer, Route } from "./route-table.ts";

/** The two logins of the database. */
export interface Logins {
  readonly system: Database;
  readonly api: Database;
}

/** What a handler gave: an answer as text, the source of a stream, or a text to be made. */
export type Outcome =
  | StoredAnswer
  | { readonly events: NonNullable<Answer["events"]> }
  | { readonly download: NonNullable<Answer["download"]> };

type Doors = Pick<TenantContext, "inSystem" | "inTenant">;

/** Runs the handler with the transactions that its route asks for, then what waits for the commit. */
export async function runRoute(
  route: Route,
  logins: Logins,
  admitted: Admitted,
  request: ReadRequest,
  idempotencyKey: string | undefined,
): Promise<Outcome> {
  const waiting: (() => void)[] = [];
  const afterCommit: PublicContext["afterCommit"] = (work) => void waiting.push(work);
  // The typed door `route` lets handlers of public routes read no actor, and of routes without a tenant none.
  const handle = (doors: Doors): Promise<Answer> =>
    route.handler(request.valid, { ...admitted, ...admitted.tenant, ...doors, afterCommit } as TenantContext);
  const apart = transactionsApart(logins, admitted);
  const isOne = route.idempotent !== undefined && !isDryRun(request.valid.query);
  const outcome = isOne
    ? await inOneTransaction(route, logins, admitted, claimOf(route, admitted, request, idempotencyKey), (tx) => {
        waiting.length = 0; // what an earlier attempt, undone by a deadlock, wanted
        return handle(joining(tx, apart, admitted));
      })
    : plainly(route, await handle(apart));
  for (const work of waiting) work();
  return outcome;
}

function isDryRun(query: unknown): boolean {
  return typeof query === "object" && query !== null && "dryRun" in query && query.dryRun === true;
}

function plainly(route: Route, answer: Answer): Outcome {
  if (answer.events !== undefined) return { events: answer.events };
  if (answer.download !== undefined) return { download: answer.download };
  return render(route, answer);
}

function transactionsApart(logins: Logins, { tenant }: Admitted): Doors {
  return {
    inSystem: (work) => logins.system.transaction(work),
    async inTenant(work) {
      if (tenant === undefined) throw new Error("a route that acts in no tenant has no tenant's transactions");
      return await logins.api.transaction(work, { tenantId: tenant.tenantId });
    },
  };
}

/** Calls join the request's transaction, of whichever login it is. */
function joining(tx: Transaction, apart: Doors, { tenant }: Admitted): Doors {
  return tenant === undefined ? { ...apart, inSystem: (work) => work(tx) } : { ...apart, inTenant: (work) => work(tx) };
}

function claimOf(
  route: Route,
  { tenant, actor }: Admitted,
  request: ReadRequest,
  key: string | undefined,
): IdempotentRequest | undefined {
  if (key === undefined) return undefined;
  return {
    tenantId: tenant?.tenantId ?? noTenantId,
    principal: actor === undefined ? "public" : `${actor.kind}:${actor.id}`,
    route: `${route.method} ${route.path}`,
    key,
    bodySha256: fingerprintOf(request.json),
  };
}

/** One transaction around key, effect and answer: all three commit or none. */
async function inOneTransaction(
  route: Route,
  logins: Logins,
  { tenant, signal }: Admitted,
  claim: IdempotentRequest | undefined,
  handle: (tx: Transaction) => Promise<Answer>,
): Promise<StoredAnswer> {
  const work = async (tx: Transaction): Promise<StoredAnswer> => {
    const replayed = claim === undefined ? undefined : await claimKey(tx, claim);
    if (replayed !== undefined)
      return { ...replayed, headers: { ...replayed.headers, "idempotency-replayed": "true" } };
    const answer = await handle(tx);
    const rendered = render(route, answer);
    if (claim !== undefined) await storeAnswer(tx, claim, rendered, unreplayableId(route, answer));
    // Whoever was told that it took too long must not find it done.
    if (signal.aborted) throw deadlineExceeded();
    return rendered;
  };
  return tenant === undefined
    ? await logins.system.transaction(work)
    : await logins.api.transaction(work, { tenantId: tenant.tenantId });
}

function unreplayableId(route: Route, answer: Answer): string | undefined {
  return typeof route.idempotent === "object" ? route.idempotent.shownOnce(answer.body) : undefined;
}

/** The answer as text. Its schema strips what was not declared, so no column gets out by accident. */
function render(route: Route, answer: Answer): StoredAnswer {
  const schema = route.responses[answer.status];
  if (schema === undefined)
    throw new Error(`${route.method} ${route.path} answered ${answer.status}, which it does not declare`);
  const body: unknown = schema.parse(answer.body);
  const text = body === undefined ? undefined : JSON.stringify(body, bigintAsText);
  return { status: answer.status, text, headers: answer.headers ?? {} };
}

/** The refusal of a request that took too long. */
export function deadlineExceeded(): DomainError {
  return new DomainError("unavailable", "DEADLINE_EXCEEDED", "The request took too long and was given up.", {
    retryAfterSeconds: 5,
  });
}
