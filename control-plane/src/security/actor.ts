import type { PlatformRole, Scope, TenantRole } from "./scopes.ts";

/** Who did something, as the audit log keeps it. */
export interface Actor {
  /** `system` for our own workers and the command line. */
  readonly kind: "user" | "token" | "node" | "system";
  /** Id of the user, token or node; for `system` the name of the part that acts. */
  readonly id: string;
}

/** A part of the control plane acting by itself. */
export function systemActor(part: string): Actor {
  return { kind: "system", id: part };
}

/** Someone who proved who he is with a session or an API token, checked against the database for this request. */
export interface Caller extends Actor {
  readonly kind: "user" | "token";
  readonly userId: string;
  readonly email: string;
  readonly platformRole: PlatformRole;
  /** The session or API token that was shown. */
  readonly credential: Credential;
  /** Tenants whose member the user is. */
  readonly memberships: readonly { readonly tenantId: string; readonly role: TenantRole }[];
}

/** What a caller showed. */
export type Credential =
  | { readonly kind: "session"; readonly id: string }
  | { readonly kind: "token"; readonly id: string; readonly tenantId: string; readonly scopes: ReadonlySet<Scope> };
