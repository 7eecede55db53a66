import { DomainError } from "@cloudpods/shared/errors";
import { violatedConstraint, type Queryable, type Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { TenantRole } from "../security/scopes.ts";

/** A user in a tenant. */
export interface Member {
  readonly userId: string;
  readonly email: string;
  readonly name: string | null;
  readonly role: TenantRole;
  readonly since: Date;
}

/** Who changes the members of a tenant. */
export interface MemberChange {
  readonly actor: Actor;
  readonly requestId: string | undefined;
  readonly tenantId: string;
  /** Owners come and go only by an owner or the platform's administrator; an admin must not make himself one. */
  readonly mayChangeOwners: boolean;
}

/** Members of a tenant in the order of their ids, above `afterUserId`. The tenants' login cannot read users: it takes the owner's. */
export async function listMembers(
  system: Queryable,
  tenantId: string,
  page: { readonly limit: number; readonly afterUserId: string | undefined },
): Promise<Member[]> {
  const after = page.afterUserId ?? null;
  return await system.query<Member>(sql`
    SELECT u.id AS "userId", u.email, u.name, m.role, m.created_at AS since
      FROM memberships m JOIN users u ON u.id = m.user_id
     WHERE m.tenant_id = ${tenantId} AND (${after}::uuid IS NULL OR u.id > ${after}::uuid)
     ORDER BY u.id LIMIT ${page.limit + 1}`);
}

/**
 * Makes a user a member.
 * @throws DomainError `already-exists` MEMBER_EXISTS; `forbidden` OWNER_REQUIRED.
 */
export async function addMember(
  tx: Transaction,
  change: MemberChange,
  userId: string,
  role: TenantRole,
): Promise<Date> {
  if (role === "owner") requireOwner(change);
  const [row] = await tx
    .query<{ created_at: Date }>(
      sql`INSERT INTO memberships (tenant_id, user_id, role) VALUES (${change.tenantId}, ${userId}, ${role}) RETURNING created_at`,
    )
    .catch((error: unknown) => {
      if (violatedConstraint(error) !== "memberships_pkey") throw error;
      throw new DomainError("already-exists", "MEMBER_EXISTS", "This user is a member already.", { cause: error });
    });
  if (row === undefined) throw new Error("INSERT … RETURNING gave no row");
  await audit(tx, change, "member.add", userId, { role });
  return row.created_at;
}

/**
 * Gives a member another role; API tokens of his stay, and act with it from now on. The system's login, since the
 * tenants' cannot read users.
 * @throws DomainError `not-found` MEMBER_UNKNOWN; `forbidden` OWNER_REQUIRED; `wrong-state` LAST_OWNER.
 */
export async function changeMemberRole(
  system: Transaction,
  change: MemberChange,
  userId: string,
  role: TenantRole,
): Promise<Member> {
  const before = await lockMember(system, change, userId, role === "owner");
  const [member] = await system.query<Member>(sql`
    UPDATE memberships m SET role = ${role} FROM users u
     WHERE m.tenant_id = ${change.tenantId} AND m.user_id = ${userId} AND u.id = m.user_id
    RETURNING u.id AS "userId", u.email, u.name, m.role, m.created_at AS since`);
  if (member === undefined) throw new Error("a member that was found was not there to change");
  await audit(system, change, "member.change-role", userId, { role, before });
  return member;
}

/**
 * Ends a membership and the user's API tokens for this tenant.
 * @throws DomainError `not-found` MEMBER_UNKNOWN; `forbidden` OWNER_REQUIRED; `wrong-state` LAST_OWNER.
 */
export async function removeMember(tx: Transaction, change: MemberChange, userId: string): Promise<void> {
  const role = await lockMember(tx, change, userId, false);
  await tx.execute(sql`DELETE FROM memberships WHERE tenant_id = ${change.tenantId} AND user_id = ${userId}`);
  await tx.execute(sql`
    UPDATE api_tokens SET revoked_at = now() WHERE tenant_id = ${change.tenantId} AND user_id = ${userId} AND revoked_at IS NULL`);
  await audit(tx, change, "member.remove", userId, { role });
}

/** The member's role, while no other change of the tenant's owners can happen; whether he may lose or be given ownership. */
async function lockMember(
  tx: Transaction,
  change: MemberChange,
  userId: string,
  staysOwner: boolean,
): Promise<TenantRole> {
  // Two owners who remove each other at the same time must not both succeed.
  await tx.query(sql`SELECT pg_advisory_xact_lock(hashtextextended('members of ' || ${change.tenantId}::text, 0))`);
  const members = await tx.query<{ user_id: string; role: TenantRole }>(
    sql`SELECT user_id, role FROM memberships WHERE tenant_id = ${change.tenantId} AND (role = 'owner' OR user_id = ${userId})`,
  );
  const member = members.find((known) => known.user_id === userId);
  if (member === undefined) throw new DomainError("not-found", "MEMBER_UNKNOWN", "There is no such member.");
  const isOwner = member.role === "owner";
  if (isOwner !== staysOwner) requireOwner(change);
  if (isOwner && !staysOwner && members.length === 1) {
    throw new DomainError("wrong-state", "LAST_OWNER", "A tenant keeps at least one owner.");
  }
  return member.role;
}

function requireOwner(change: MemberChange): void {
  if (change.mayChangeOwners) return;
  throw new DomainError("forbidden", "OWNER_REQUIRED", "Only an owner can make or remove owners.");
}

async function audit(
  tx: Transaction,
  change: MemberChange,
  action: string,
  userId: string,
  detail: Record<string, unknown>,
): Promise<void> {
  const { actor, requestId, tenantId } = change;
  await recordAudit(tx, { actor, requestId, tenantId, action, targetType: "user", targetId: userId, detail });
}
