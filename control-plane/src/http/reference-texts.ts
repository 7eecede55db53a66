import { z } from "@hono/zod-openapi";
import type { Route } from "./route-table.ts";
import { csrfHeader } from "./session-cookie.ts";

/** Groups of the reference, in the order of a customer's and then an operator's day. A route may name no other. */
export const tagTexts = {
  auth: "Signing in and out.",
  security: "One's own profile, sessions and API tokens.",
  pods: "Ordering, looking at and changing pods.",
  tasks: "Work that takes long: how far it is, cancelling it, trying it again.",
  backups: "Archives of pods: schedules, making, restoring and deleting them.",
  plans: "What can be ordered; administrators change it.",
  usage: "What was used and what it costs: now, by day, forecast, exported.",
  budgets: "What a tenant means to spend, and what happens beyond it.",
  quotas: "How much a tenant may have.",
  pricing: "Price lists and their versions.",
  tenants: "Tenants, their settings, members and webhooks.",
  users: "Accounts; for administrators.",
  nodes: "Hosts: joining, looking at, cordoning, draining, evacuating and removing them, and what is found on them.",
  scheduler: "Where a pod would be placed, and how many more fit.",
  operators: "Pods of all tenants: lists, moves, adoption.",
  operations: "The platform at a glance, the audit log and its proof, what was put aside.",
} as const;

/** What parameters mean that are the same in every route; a route's own words come first. */
const parameterTexts: Readonly<Record<string, string>> = {
  pod: "VMID or UUID of a pod.",
  node: "Name or UUID of a host; one that was removed by its UUID only.",
  tenant: "UUID of a tenant.",
  tenantId: "UUID of a tenant.",
  user: "UUID of a user.",
  task: "UUID of a task.",
  id: "UUID of the thing that the path names.",
  finding: "UUID of a finding.",
  code: "Code of a plan, in full (`CLOUD_POD_STARTER`) or in short (`STARTER`).",
  limit: "How many rows at most.",
  region: "Only of this region.",
  status: "Only with this status; without it whatever is not deleted.",
  state: "Only in this state.",
  planCode: "Only of this plan; its code in full or in short.",
  hostname: "Only with this hostname.",
  currency: "ISO 4217; without it the default currency.",
  kind: "Only of this kind.",
  family: "Only plans of this family.",
  name: "Only of this name.",
  nodeId: "UUID of a host.",
  format: "Columns of the export.",
  action: "Only this deed, e.g. `pod.order`.",
  targetType: "Only deeds on things of this type, e.g. `pod`.",
  since: "Not before this instant.",
  type: "Only of this type.",
  podId: "Only of the pod with this UUID.",
  days: "How many days back, today included.",
  hours: "How many hours back.",
  role: "Only hosts of this role.",
};

/** A parameter as the document has it. */
interface Parameter {
  readonly name: string;
  description?: string;
  readonly schema?: { readonly description?: string };
}

/** Says of each parameter that no route has words for what it means everywhere. */
export function describeParameters(paths: Readonly<Record<string, object>>): void {
  for (const operation of Object.values(paths).flatMap((methods) => Object.values(methods) as unknown[])) {
    const { parameters = [] } = operation as { readonly parameters?: Parameter[] };
    for (const parameter of parameters) {
      const text = parameterTexts[parameter.name];
      const isSilent = parameter.description === undefined && parameter.schema?.description === undefined;
      if (isSilent && text !== undefined) parameter.description = text;
    }
  }
}

/** What an answer with a status means in a route. */
export function statusText(route: Route, status: string): string {
  const isDryRun = route.request?.query !== undefined && "dryRun" in route.request.query.shape;
  const isWork = isDryRun && Object.keys(route.responses).length > 1;
  if (status === "200" && isWork) return "With `dryRun`: what would be done; nothing was changed.";
  if (status === "200" && route.mediaType === "text/event-stream") return "Events as they come, to the end.";
  if (status === "200") return route.method === "get" ? "What was asked for." : "Done; as it is now.";
  if (status === "201") return "Made.";
  if (status === "204") return "Done; there is nothing to tell.";
  if (status === "202")
    return hasTask(route) ? "Begun: follow the task (`Location`)." : "Begun: see how it goes on at `Location`.";
  return "Answered.";
}

function hasTask(route: Route): boolean {
  const accepted = route.responses[202];
  return accepted instanceof z.ZodObject && "task" in accepted.shape;
}

/** Refusals that a route can give because of what it is, with their codes; `default` stands for those of the deed itself. */
export function refusalTexts(route: Route): Readonly<Record<string, string>> {
  const { access, request, path } = route;
  const isPublic = access === "public";
  const scoped = typeof access === "object" && "scope" in access;
  const changes = route.method !== "get";
  const forbidden = [
    ...(scoped ? ["`SCOPE_MISSING`"] : []),
    ...(typeof access === "object" && "platform" in access ? ["`PLATFORM_ROLE_REQUIRED`"] : []),
    ...(typeof access === "object" && ("session" in access || "credential" in access) ? ["`SESSION_REQUIRED`"] : []),
    ...(changes ? ["`CSRF_TOKEN_INVALID`"] : []),
  ];
  const takesInput = request?.query !== undefined || request?.body !== undefined;
  return {
    ...(isPublic
      ? {}
      : {
          401: "No valid credential: `CREDENTIAL_MISSING`, `CREDENTIAL_INVALID`, `CREDENTIAL_EXPIRED`.",
          403: `Not allowed: ${forbidden.join(", ")}.`,
        }),
    ...(path.includes(":") || scoped
      ? { 404: "Not there, or another tenant's: the code names what, e.g. `POD_NOT_FOUND`, `TENANT_UNKNOWN`." }
      : {}),
    ...(route.idempotent === undefined
      ? {}
      : { 409: "`IDEMPOTENCY_KEY_REUSED`, `IDEMPOTENCY_IN_PROGRESS`, or the state of the thing does not allow it." }),
    ...(route.checksVersion === true ? { 412: "`VERSION_MISMATCH`: it was changed in the meantime." } : {}),
    ...(takesInput
      ? {
          422: "`VALIDATION_FAILED`, with JSON pointers in `errors`; other codes name what the deed itself does not take.",
        }
      : {}),
  };
}

/** Headers that a route reads. */
export function headersOf(route: Route): { headers: z.ZodObject } | undefined {
  const text = z.string().optional();
  const changes = route.method !== "get" && route.access !== "public";
  const shape: Record<string, z.ZodType> = {
    ...(typeof route.access === "object" && "scope" in route.access
      ? {
          "X-Tenant-Id": z
            .uuid()
            .optional()
            .openapi({ description: "Tenant to act in, where the caller has several; operators may name any." }),
        }
      : {}),
    ...(route.idempotent === undefined
      ? {}
      : {
          "Idempotency-Key": z
            .string()
            .max(255)
            .optional()
            .openapi({ description: "The same key and request give the same answer for 24 h." }),
        }),
    ...(route.checksVersion === true
      ? { "If-Match": text.openapi({ description: "Version that the change was decided on; another is 412." }) }
      : {}),
    ...(route.mediaType === "text/event-stream"
      ? {
          "Last-Event-ID": text.openapi({
            description: "Id of the last event that was seen; without it the stream begins at the first.",
          }),
        }
      : {}),
    ...(changes
      ? {
          [csrfHeader]: text.openapi({
            description: "With the session cookie: the value of the cookie `cloudpods_csrf`. Bearer tokens do without.",
          }),
        }
      : {}),
  };
  return Object.keys(shape).length === 0 ? undefined : { headers: z.object(shape) };
}
