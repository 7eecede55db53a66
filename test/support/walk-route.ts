import { parameterNames, type Route } from "../../control-plane/src/http/route-table.ts";
import type { App } from "../../control-plane/src/http/trail.ts";
import type { Credential, TwoTenants } from "./two-tenants.ts";

/** What came back, as far as the walk looks. */
interface Seen {
  readonly status: number;
  readonly code: string;
  readonly text: string;
}

// A stream is read for this long: what it says at once is what matters here.
const streamMs = 300;

/**
 * Calls a route in every way in which it must refuse, and with the ids of somebody else's things; gives what went
 * wrong. A route that cannot be called so (no ids known for its parameters, no example of its body) is a fault too.
 */
export async function faultsOfRoute(route: Route, app: App, world: TwoTenants): Promise<string[]> {
  const faults: string[] = [];
  const fault = (what: string, seen: Seen): void =>
    void faults.push(`${what}: ${seen.status} ${seen.code} ${seen.text.slice(0, 200)}`);
  const paths = foreignPaths(route, world);
  const first = paths?.[0];
  if (paths === undefined || first === undefined)
    return [`no ids of another tenant are known for the parameters of ${route.path}`];
  if (route.access !== "public" && route.request?.body !== undefined && route.request.example === undefined) {
    return ["its body has no example"];
  }
  const call = (path: string, headers: Credential): Promise<Seen> => callRoute(route, app, path, headers);
  const before = await world.stateOfVictim();

  if (route.access === "public") {
    for (const headers of [world.dead["no credential"] ?? {}, world.dead["rubbish"] ?? {}]) {
      const seen = await call(first, headers);
      if (/^(CREDENTIAL_|SCOPE_|SESSION_REQUIRED|PLATFORM_)/.test(seen.code))
        fault("it is public and asks who calls", seen);
    }
    return faults;
  }
  for (const [name, headers] of Object.entries(world.dead)) {
    const seen = await call(first, headers);
    if (seen.status !== 401 || !seen.code.startsWith("CREDENTIAL_")) fault(`with ${name}`, seen);
  }
  // In the caller's own tenant: the other one would not even exist for him.
  const ownPath = first.replace(`/tenants/${world.victim.tenantId}`, `/tenants/${world.attackersTenantId}`);
  for (const { name, headers, code } of await insufficient(route, world)) {
    const seen = await call(ownPath, headers);
    if (seen.status !== 403 || seen.code !== code) fault(`with ${name}`, seen);
  }
  if ("scope" in route.access || "session" in route.access) {
    const headers = await world.attacker();
    for (const path of paths) {
      const seen = await call(path, headers);
      const isForeign = parameterNames(route.path).length > 0;
      if (isForeign && seen.status !== 404) fault(`with another tenant's ids (${path})`, seen);
      if (!isForeign && [401, 500].includes(seen.status)) fault("in the caller's own tenant", seen);
      for (const mark of world.victimsMarks) {
        if (!path.includes(mark) && seen.text.includes(mark)) fault(`it shows ${mark} of another tenant`, seen);
      }
    }
    if ("scope" in route.access) {
      const seen = await call(first, { ...headers, "x-tenant-id": world.victim.tenantId });
      if (seen.status !== 404) fault("naming another tenant", seen);
    }
  }
  if ((await world.stateOfVictim()) !== before) faults.push("it changed something of another tenant");
  return faults;
}

/** Credentials that are good, but not for this route, and the code of the refusal. */
async function insufficient(
  route: Route,
  world: TwoTenants,
): Promise<{ name: string; headers: Credential; code: string }[]> {
  const { access } = route;
  if (access === "public") return [];
  const anyToken = { name: "an API token", headers: world.tokenWithout.BILLING, code: "SESSION_REQUIRED" };
  if ("session" in access) return [anyToken];
  if ("platform" in access) {
    const headers = access.platform === "OPERATOR" ? await world.attacker() : world.operator.headers;
    const changing = access.platform === "OPERATOR" ? "WRITE" : "ADMIN";
    const scope = route.method === "get" ? "READ" : changing;
    const token = world.platformTokenWithout[access.platform][scope];
    if (token === undefined) throw new Error(`no token of an ${access.platform} without ${scope} was made`);
    return [
      { name: "too weak a platform role", headers, code: "PLATFORM_ROLE_REQUIRED" },
      { name: `a token of the role without ${scope}`, headers: token, code: "SCOPE_MISSING" },
    ];
  }
  if (access.credential === "session") return [anyToken];
  return [
    { name: `a token without ${access.scope}`, headers: world.tokenWithout[access.scope], code: "SCOPE_MISSING" },
  ];
}

/** The route's path with things of the victim; several where a thing has several names; undefined when one is not known. */
function foreignPaths(route: Route, { victim }: TwoTenants): string[] | undefined {
  const byPrefix: Readonly<Record<string, string>> = {
    "/api/security/tokens/": victim.tokenId,
    "/api/security/me/sessions/": victim.owner.sessionId,
    "/api/tenants/:tenant/members/": victim.owner.userId,
    "/api/cloud-pods/budget/alerts/": victim.alertId,
    "/api/cloud-pods/:pod/backups/": victim.backupId,
  };
  const byName: Readonly<Record<string, readonly string[]>> = {
    pod: [victim.pod.id, String(victim.pod.vmid)],
    task: [victim.pod.taskId],
    tenant: [victim.tenantId],
  };
  let paths = [route.path];
  for (const name of parameterNames(route.path)) {
    const [, owned] = Object.entries(byPrefix).find(([prefix]) => route.path.startsWith(`${prefix}:${name}`)) ?? [];
    const values = owned === undefined ? (byName[name] ?? ofNobody(route, victim.pod.id)) : [owned];
    if (values === undefined) return undefined;
    paths = paths.flatMap((path) => values.map((value) => path.replace(`:${name}`, value)));
  }
  return paths;
}

/** What belongs to no tenant cannot be foreign: any value of the form will do to see who is let in. */
function ofNobody({ access }: Route, anyId: string): string[] | undefined {
  return access === "public" || "platform" in access ? [anyId] : undefined;
}

async function callRoute(route: Route, app: App, path: string, headers: Credential): Promise<Seen> {
  const hasBody = route.request?.body !== undefined;
  const response = await app.request(path, {
    method: route.method.toUpperCase(),
    headers: { ...headers, ...(hasBody ? { "content-type": "application/json" } : {}) },
    ...(hasBody ? { body: JSON.stringify(route.request?.example ?? {}) } : {}),
  });
  const text =
    response.headers.get("content-type") === "text/event-stream" ? await beginningOf(response) : await response.text();
  const code = /"error":"([A-Z_]+)"/.exec(text)?.[1] ?? "";
  return { status: response.status, code, text };
}

async function beginningOf(response: Response): Promise<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (reader === undefined) return "";
  const timer = setTimeout(() => void reader.cancel(), streamMs);
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
  clearTimeout(timer);
  return text;
}
