import { z } from "@hono/zod-openapi";
import type { UserContext } from "../http/context.ts";
import { counter, timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { walkAtOnce } from "../security/prove-audit.ts";
import { verifyAuditChain, type AuditRange } from "../security/verify-audit-chain.ts";
import { auditKey, listAudit } from "./list-audit.ts";

const auditRow = z
  .object({
    id: uuid,
    at: timestamp,
    tenantId: uuid.nullable(),
    actorKind: z.enum(["user", "token", "node", "system"]),
    actorId: z.string().nullable(),
    requestId: z.string().nullable(),
    action: z.string().openapi({ example: "pod.order" }),
    targetType: z.string().openapi({ example: "pod" }),
    targetId: z.string().nullable(),
    detail: z.record(z.string(), z.unknown()),
    seq: counter.nullable().openapi({ description: "Place in the chain; null until it is sealed, within seconds." }),
  })
  .openapi("AuditEntry");

const instant = z.iso
  .datetime()
  .transform((text) => new Date(text))
  .openapi({ type: "string", format: "date-time" });

const auditQuery = listQuery.extend({
  tenant: z.uuid().optional(),
  actor: z
    .string()
    .max(200)
    .optional()
    .openapi({ description: "Id of a user, API token or node, or the name of a part of the control plane." }),
  action: z.string().max(100).optional(),
  targetType: z.string().max(100).optional(),
  target: z.string().max(200).optional().openapi({ description: "Id of the changed thing." }),
  since: instant.optional(),
  until: instant.optional().openapi({ description: "Exclusive." }),
});

const chainNumber = z
  .string()
  .regex(/^[0-9]{1,18}$/)
  .transform(BigInt)
  .openapi({ type: "string", pattern: "^[0-9]{1,18}$" });

const rowsMax = 50_000;

const verifyQuery = z.object({
  from: chainNumber.optional().openapi({ description: "Number of the row to begin with; default the first." }),
  root: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional()
    .openapi({ description: "Root that was noted for the rows before `from`: shows whether they were exchanged." }),
  limit: z.coerce.number().int().min(1).max(rowsMax).default(10_000).openapi({
    type: "integer",
    minimum: 1,
    maximum: rowsMax,
    default: 10_000,
    description: "Go no further after so many rows.",
  }),
});

const verdict = z
  .object({
    intact: z.boolean(),
    from: counter,
    verifiedRows: counter,
    unsealedRows: counter.openapi({ description: "Rows that have no place in the chain yet." }),
    root: z.string().openapi({
      description: "SHA-256 (hex) of the last seal that holds. Noted elsewhere it proves the log up to there.",
    }),
    next: z
      .object({ from: counter, root: z.string() })
      .nullable()
      .openapi({ description: "With what to go on; null at the end of the chain and at a fault." }),
    fault: z
      .object({
        seq: counter,
        code: z.enum(["ROW_MISSING", "ROW_CHANGED", "SEAL_BROKEN", "ROW_UNSEALED", "ROOT_DIFFERS"]),
      })
      .nullable()
      .openapi({ description: "The first place where the log is not what was sealed." }),
  })
  .openapi("AuditVerdict");

const access = { platform: "OPERATOR" } as const;
const tags = ["operations"];

/** Adds reading the audit log and proving that it is as it was written. */
export function registerAuditRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/ops/audit",
    summary: "Who changed what, newest first",
    tags,
    access,
    request: { query: auditQuery },
    responses: { 200: listOf(auditRow) },
    async handler({ query }, ctx) {
      const { tenant, limit, cursor, ...filter } = query;
      const rows = await listAudit(
        ctx.system,
        { ...filter, tenantId: tenant },
        { limit: limit + 1, after: decodeCursor(cursor, 2) },
      );
      if (tenant !== undefined) await leaveTrace(ctx, tenant, filter);
      return { status: 200, body: toPage(rows, limit, auditKey, (row) => row) };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/ops/audit/verify",
    summary: "Whether a part of the audit log is as it was written; go on with `next` until it is null",
    tags,
    access,
    request: { query: verifyQuery },
    responses: { 200: verdict },
    async handler({ query: { from, root, limit } }, ctx) {
      const range = {
        ...(from === undefined ? {} : { fromSeq: from }),
        ...(root === undefined ? {} : { rootBefore: root }),
        rowsMax: BigInt(limit),
      };
      return { status: 200, body: await verify(ctx, range) };
    },
  });
}

/** An operator who reads about a customer leaves a trace there. */
async function leaveTrace(ctx: UserContext, tenantId: string, filter: Readonly<Record<string, unknown>>) {
  const [tenant] = await ctx.system.query(sql`SELECT FROM tenants WHERE id = ${tenantId}`);
  if (tenant === undefined) return;
  const { actor, requestId } = ctx;
  await recordAudit(ctx.system, {
    actor,
    requestId,
    tenantId,
    action: "audit.read",
    targetType: "tenant",
    targetId: tenantId,
    detail: filter,
  });
}

async function verify(ctx: UserContext, range: AuditRange) {
  const found = await ctx.inSystem(async (tx) => {
    // Rows are sealed while we read.
    await tx.execute(sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`);
    return await verifyAuditChain(tx, range);
  });
  const { fault, fromSeq, nextSeq, verifiedRows, unsealedRows, root } = found;
  if (fault !== undefined) ctx.log.error({ fault }, "the audit log is not what was sealed");
  // A root that was given wrongly says nothing about the log.
  if (fault !== undefined && fault.code !== "ROOT_DIFFERS") await walkAtOnce(ctx.system, fault);
  await recordAudit(ctx.system, {
    actor: ctx.actor,
    requestId: ctx.requestId,
    tenantId: undefined,
    action: "audit.verify",
    targetType: "audit-log",
    targetId: undefined,
    detail: { from: fromSeq, verifiedRows, root, ...(fault === undefined ? {} : { fault }) },
  });
  return {
    intact: fault === undefined,
    from: fromSeq,
    verifiedRows,
    unsealedRows,
    root,
    next: nextSeq === undefined ? null : { from: nextSeq, root },
    fault: fault ?? null,
  };
}
