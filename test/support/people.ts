import { randomBytes } from "node:crypto";
import type { App } from "../../control-plane/src/http/trail.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { PlatformRole, Scope, TenantRole } from "../../control-plane/src/security/scopes.ts";
import { createTenant } from "../../control-plane/src/tenancy/create-tenant.ts";
import { createUser } from "../../control-plane/src/tenancy/create-user.ts";
import type { TestDatabase } from "./postgres.ts";

type Databases = Pick<TestDatabase, "system">;

/** Password of everybody in tests. */
export const testPassword = "correct horse battery";

/** Makes a tenant with a slug of its own; gives its id. */
export async function makeTenant(db: Databases, slug = `tenant-${randomBytes(4).toString("hex")}`): Promise<string> {
  return (await db.system.transaction((tx) => createTenant(tx, { slug, name: slug }))).id;
}

/** Who a person is to be. */
export interface PersonWish {
  readonly platformRole?: PlatformRole;
  readonly tenants?: Readonly<Record<string, TenantRole>>;
}

/** Somebody who is signed in. */
export interface Person {
  readonly userId: string;
  readonly email: string;
  readonly sessionId: string;
  /** The session's token. */
  readonly token: string;
  readonly csrfToken: string;
  /** Authorization header of the session. */
  readonly headers: Readonly<Record<string, string>>;
}

/** Makes a user and signs him in by the public door. */
export async function makePerson(db: Databases, app: App, wish: PersonWish = {}): Promise<Person> {
  const email = `${randomBytes(4).toString("hex")}@example.test`;
  const user = await db.system.transaction(async (tx) => {
    const made = await createUser(tx, { email, password: testPassword, platformRole: wish.platformRole ?? "USER" });
    for (const [tenantId, role] of Object.entries(wish.tenants ?? {})) {
      await tx.execute(
        sql`INSERT INTO memberships (tenant_id, user_id, role) VALUES (${tenantId}, ${made.id}, ${role})`,
      );
    }
    return made;
  });
  const answer = await send(app, "POST", "/api/auth/login", { body: { email, password: testPassword } });
  if (answer.status !== 200) throw new Error(`sign-in answered ${answer.status}: ${answer.text}`);
  const { token, csrfToken, sessionId } = answer.json;
  return {
    userId: user.id,
    email,
    sessionId: String(sessionId),
    token: String(token),
    csrfToken: String(csrfToken),
    headers: bearer(String(token)),
  };
}

/** Makes an API token by the public door; gives its id and secret. */
export async function makeApiToken(
  app: App,
  person: Person,
  wish: { scopes: readonly Scope[]; tenantId?: string; allowedCidrs?: readonly string[]; expiresAt?: Date },
): Promise<{ id: string; secret: string; headers: Readonly<Record<string, string>> }> {
  const { tenantId, ...body } = wish;
  const headers = { ...person.headers, ...(tenantId === undefined ? {} : { "x-tenant-id": tenantId }) };
  const answer = await send(app, "POST", "/api/security/tokens", { headers, body: { name: "test", ...body } });
  if (answer.status !== 201) throw new Error(`making a token answered ${answer.status}: ${answer.text}`);
  const secret = String(answer.json["token"]);
  return { id: String(answer.json["id"]), secret, headers: bearer(secret) };
}

/** Authorization header of a session or API token. */
export function bearer(secret: string): { authorization: string } {
  return { authorization: `Bearer ${secret}` };
}

/** An answer, read to its end. */
export interface Sent {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body where it is a JSON object, else empty. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** Sends a request to the app without a port; `address` is the peer of the connection. */
export async function send(
  app: App,
  method: string,
  path: string,
  options: { headers?: Readonly<Record<string, string>>; body?: unknown; address?: string } = {},
): Promise<Sent> {
  const { headers = {}, body, address = "203.0.113.7" } = options;
  const json =
    body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json", ...headers } };
  const response = await app.request(
    path,
    { method, headers, ...json },
    { incoming: { socket: { remoteAddress: address } } },
  );
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, json: objectOf(text) };
}

function objectOf(text: string): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null ? { ...parsed } : {};
  } catch {
    return {}; // not JSON
  }
}
