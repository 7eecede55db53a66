import { DomainError } from "@cloudpods/shared/errors";
import { isUuid } from "@cloudpods/shared/ids";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Caller } from "./actor.ts";
import { includesPlatformRole, scopesInBoth, scopesOfRoles, type PlatformRole, type Scope } from "./scopes.ts";

/** The tenant that a request acts in and what its caller may do there. */
export interface ActingIn {
  readonly tenantId: string;
  readonly scopes: ReadonlySet<Scope>;
  /** The caller is here by his platform role and not as a member: every such request is audited. */
  readonly asOperator: boolean;
}

/** How a request says which tenant it means. */
export interface TenantChoice {
  /** X-Tenant-Id. */
  readonly named: string | undefined;
  /** Finds the tenant that owns the resource in the path; only operators may be led by it. */
  readonly ownerOfResource: () => Promise<string | undefined>;
}

/**
 * Decides in which tenant the caller acts: the one he names, else for operators the owner of the resource in
 * the path, else that of his token, else the only one he is a member of.
 *
 * @throws DomainError `not-found` TENANT_UNKNOWN for a tenant that does not exist or is not his: strangers learn
 *   nothing; `invalid` TENANT_REQUIRED when several are possible or none.
 */
export async function chooseTenant(system: Database, caller: Caller, choice: TenantChoice): Promise<ActingIn> {
  const isOperator = includesPlatformRole(caller.platformRole, "OPERATOR");
  const tenantId = choice.named ?? (isOperator ? await choice.ownerOfResource() : undefined) ?? ownTenant(caller);
  if (!isUuid(tenantId) || !(isOperator || mayNameTenant(caller, tenantId))) throw tenantUnknown();
  const [tenant] = await system.query<{ status: string }>(sql`SELECT status FROM tenants WHERE id = ${tenantId}`);
  if (tenant === undefined || (tenant.status === "closed" && !isOperator)) throw tenantUnknown();
  const role = caller.memberships.find((membership) => membership.tenantId === tenantId)?.role;
  const granted = scopesOfRoles(caller.platformRole, role);
  const asOperator = isOperator && role === undefined;
  // A suspended tenant reads, and pays; it gets nothing new.
  const here =
    tenant.status === "suspended" && !isOperator ? scopesInBoth(granted, new Set<Scope>(["READ", "BILLING"])) : granted;
  return {
    tenantId,
    asOperator,
    scopes: caller.credential.kind === "token" ? scopesInBoth(caller.credential.scopes, here) : here,
  };
}

function mayNameTenant(caller: Caller, tenantId: string): boolean {
  if (caller.credential.kind === "token") return caller.credential.tenantId === tenantId;
  return caller.memberships.some((membership) => membership.tenantId === tenantId);
}

function ownTenant(caller: Caller): string {
  if (caller.credential.kind === "token") return caller.credential.tenantId;
  const [first, second] = caller.memberships;
  if (first !== undefined && second === undefined) return first.tenantId;
  throw new DomainError("invalid", "TENANT_REQUIRED", "Name the tenant to act in with the header X-Tenant-Id.");
}

function tenantUnknown(): DomainError {
  return new DomainError("not-found", "TENANT_UNKNOWN", "There is no such tenant.");
}

/** @throws DomainError `forbidden` SCOPE_MISSING. */
export function requireScope(held: ReadonlySet<Scope>, asked: Scope): void {
  if (held.has(asked)) return;
  throw new DomainError("forbidden", "SCOPE_MISSING", `This needs the scope ${asked}.`, { details: { scope: asked } });
}

/**
 * A platform route needs the role; an API token of such a user also READ to read and, to change, WRITE in
 * operators' and ADMIN in administrators' routes, so that a token for watching cannot drain a node.
 *
 * @throws DomainError `forbidden` PLATFORM_ROLE_REQUIRED, SCOPE_MISSING.
 */
export function requirePlatformRole(caller: Caller, asked: Exclude<PlatformRole, "USER">, changes: boolean): void {
  if (!includesPlatformRole(caller.platformRole, asked)) {
    throw new DomainError("forbidden", "PLATFORM_ROLE_REQUIRED", `This needs the platform role ${asked}.`, {
      details: { role: asked },
    });
  }
  if (caller.credential.kind !== "token") return;
  const changing = asked === "OPERATOR" ? "WRITE" : "ADMIN";
  requireScope(caller.credential.scopes, changes ? changing : "READ");
}

/** @throws DomainError `forbidden` SESSION_REQUIRED for an API token: one that leaked must not make itself another. */
export function requireSession(caller: Caller): void {
  if (caller.credential.kind === "session") return;
  throw new DomainError("forbidden", "SESSION_REQUIRED", "This needs a signed-in session; an API token cannot do it.");
}

/** Parameters of a path by which the owner of a resource is found. */
export interface ResourceInPath {
  readonly tenant?: string;
  readonly pod?: string;
  readonly task?: string;
}

/**
 * The tenant that a path names itself or that owns its pod (UUID or VMID) or task; undefined when the path has
 * none of them. For operators: what it tells about other tenants' pods is not for their eyes.
 * @throws DomainError `POD_NOT_FOUND`, `TASK_NOT_FOUND`
 */
export async function ownerOfResource(system: Database, resource: ResourceInPath): Promise<string | undefined> {
  const { tenant, pod, task } = resource;
  if (tenant !== undefined) return tenant;
  if (task !== undefined) {
    const [row] = await system.query<{ tenant_id: string }>(
      sql`SELECT tenant_id FROM cloud_pod_provisioning_tasks WHERE id = ${task}`,
    );
    if (row === undefined) throw new DomainError("not-found", "TASK_NOT_FOUND", "There is no such task.");
    return row.tenant_id;
  }
  if (pod === undefined) return undefined;
  // A VMID names the pod that has it now, before those that had it and are gone.
  const which = isUuid(pod) ? sql`id = ${pod}` : sql`vmid = ${Number(pod)}`;
  const [row] = await system.query<{ tenant_id: string }>(sql`
    SELECT tenant_id FROM cloud_pods WHERE ${which} ORDER BY status = 'deleted', ordered_at DESC LIMIT 1`);
  if (row === undefined) throw new DomainError("not-found", "POD_NOT_FOUND", "There is no such pod.");
  return row.tenant_id;
}
