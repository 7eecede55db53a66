/** What an API token may be limited to; a signed-in user holds those of his roles. */
export const scopes = ["READ", "WRITE", "ADMIN", "BILLING", "PROVISIONING", "SECURITY"] as const;
export type Scope = (typeof scopes)[number];

/** What a user is in one tenant. */
export const tenantRoles = ["owner", "admin", "billing", "member", "viewer"] as const;
export type TenantRole = (typeof tenantRoles)[number];

/** What a user is on the whole platform, weakest first. */
export const platformRoles = ["USER", "OPERATOR", "ADMINISTRATOR"] as const;
export type PlatformRole = (typeof platformRoles)[number];

const ofTenantRole = {
  owner: scopes,
  admin: scopes,
  billing: ["READ", "BILLING"],
  member: ["READ", "WRITE", "PROVISIONING"],
  viewer: ["READ"],
} as const satisfies Record<TenantRole, readonly Scope[]>;

/** In every tenant, by the platform role alone. Operators see neither money nor security policy. */
const ofPlatformRole = {
  USER: [],
  OPERATOR: ["READ", "WRITE", "PROVISIONING"],
  ADMINISTRATOR: scopes,
} as const satisfies Record<PlatformRole, readonly Scope[]>;

/** The scopes of a user in a tenant: those of his role there and those of his platform role. */
export function scopesOfRoles(platformRole: PlatformRole, tenantRole: TenantRole | undefined): ReadonlySet<Scope> {
  return new Set<Scope>([
    ...ofPlatformRole[platformRole],
    ...(tenantRole === undefined ? [] : ofTenantRole[tenantRole]),
  ]);
}

/** Scopes that both sets have: a token never does more than its user may do at this moment. */
export function scopesInBoth(granted: ReadonlySet<Scope>, limit: ReadonlySet<Scope>): ReadonlySet<Scope> {
  return new Set([...granted].filter((scope) => limit.has(scope)));
}

/** Whether a platform role includes another one. */
export function includesPlatformRole(held: PlatformRole, asked: PlatformRole): boolean {
  return platformRoles.indexOf(held) >= platformRoles.indexOf(asked);
}
