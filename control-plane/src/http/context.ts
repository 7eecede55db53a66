import type { Logger } from "pino";
import type { Database, Transaction } from "../platform/database.ts";
import type { Caller } from "../security/actor.ts";
import type { Scope } from "../security/scopes.ts";

/** What every handler is told about its request. */
export interface PublicContext {
  readonly requestId: string;
  /** One instant for the whole request, so that everything it writes agrees. */
  readonly now: Date;
  /** Address of the client, behind trusted proxies; undefined where the transport has none. */
  readonly address: string | undefined;
  readonly userAgent: string | undefined;
  /** Aborted when the request's deadline has passed. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** The owner's login: sees all tenants. For what is no tenant's, and for reading beyond one tenant. */
  readonly system: Database;
  /**
   * Runs `work` in a transaction of the owner's login. In an idempotent route that acts in no tenant
   * this is the request's one transaction, see `RouteDefinition.idempotent`.
   */
  inSystem<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
  /** Runs `work` after the request's transaction has committed, e.g. to wake a worker. It must not throw. */
  afterCommit(work: () => void): void;
}

/** As `PublicContext`, for a caller who is signed in. */
export interface UserContext extends PublicContext {
  readonly actor: Caller;
}

/** As `UserContext`, acting in one tenant with a scope that the route asked for. */
export interface TenantContext extends UserContext {
  readonly tenantId: string;
  /** The caller is here by his platform role and not as a member. */
  readonly asOperator: boolean;
  /** What the caller may do in this tenant at this moment. */
  readonly scopes: ReadonlySet<Scope>;
  /**
   * Runs `work` in a transaction of the tenants' login with the tenant set: rows of others do not exist
   * in it. In an idempotent route all calls join the request's one transaction.
   */
  inTenant<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
}
