import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { Money } from "@cloudpods/shared/money";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { sqlState, violatedConstraint, type Queryable, type Transaction } from "../platform/database.ts";
import { joinSql, sql, type Sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { pricingColumns, pricingInForce, type Pricing } from "./pricing.ts";

const currency = z.string().regex(/^[A-Z]{3}$/, "must be an ISO 4217 code");
const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be small letters, digits and dashes")
  .openapi({ example: "standard" });
const price = z
  .string()
  .regex(/^\d{1,9}(\.\d{1,10})?$/, "must be a decimal number as text")
  .openapi({ example: "0.005" });
const usd = z.string().optional().openapi({ description: "The same where the currency is USD." });
const instant = z.iso
  .datetime()
  .transform((text) => new Date(text))
  .openapi({ type: "string", format: "date-time" });

const pricingView = z
  .object({
    id: uuid,
    name,
    currency,
    cpuPerHour: price.openapi({ description: "One core for an hour in which the pod runs." }),
    cpuPerHourUsd: usd,
    memoryGbPerHour: price.openapi({ description: "1 GB (1024 MB) for an hour in which the pod runs." }),
    memoryGbPerHourUsd: usd,
    diskGbPerMonth: price.openapi({
      description: "1 GB for a UTC month in which the pod exists; parts of it by the second.",
    }),
    diskGbPerMonthUsd: usd,
    networkOutGb: price.openapi({
      description:
        "1 GB (2^30 bytes) from the pod. A sample's traffic is paid at the price in force at its end, traffic beyond a " +
        "plan's allowance at that of the beginning of its hour.",
    }),
    networkOutGbUsd: usd,
    networkInGb: price.openapi({ description: "1 GB to the pod, unless that is free." }),
    networkInFree: z.boolean(),
    isDefault: z.boolean().openapi({ description: "For tenants that name no list." }),
    effectiveFrom: timestamp,
    effectiveUntil: timestamp.nullable(),
  })
  .openapi("Pricing");

const newVersion = z.strictObject({
  name,
  currency,
  cpuPerHour: price,
  memoryGbPerHour: price,
  diskGbPerMonth: price,
  networkOutGb: price,
  networkInGb: price.default("0"),
  networkInFree: z.boolean().default(true),
  isDefault: z.boolean().optional().openapi({ description: "Default: as the version that it follows." }),
  effectiveFrom: instant.optional().openapi({ type: "string", format: "date-time", description: "Default: now." }),
  effectiveUntil: instant.nullable().default(null).openapi({ type: "string", format: "date-time" }),
});

/** A version and when it begins as PostgreSQL writes it, to the microsecond. */
interface ListedPricing extends Pricing {
  readonly effectiveFromText: string;
}

const tags = ["pricing"];

/** Adds what usage costs: the list in force for everybody, its versions for administrators. */
export function registerPricingRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/pricing",
    summary: "What usage costs now, where no other list was agreed",
    tags,
    access: "public",
    request: { query: z.object({ currency: currency.default("USD") }) },
    responses: { 200: pricingView },
    async handler({ query }, { system, now }) {
      const current = await pricingInForce(system, query, now);
      if (current === undefined) {
        throw new DomainError("not-found", "PRICING_NOT_FOUND", "There is no pricing in this currency at the moment.");
      }
      return { status: 200, body: shown(current) };
    },
  });
  registerVersions(routes);
}

function registerVersions(routes: RouteTable): void {
  const path = "/api/cloud-pods/pricing/versions";
  const access = { platform: "ADMINISTRATOR" } as const;
  route(routes, {
    method: "get",
    path,
    summary: "Versions of all price lists, newest first",
    tags,
    access,
    request: { query: listQuery.extend({ name: name.optional(), currency: currency.optional() }) },
    responses: { 200: listOf(pricingView) },
    async handler({ query }, { system }) {
      const [beforeTime, beforeId] = decodeCursor(query.cursor, 2) ?? [];
      const conditions: Sql[] = [
        sql`true`,
        ...(query.name === undefined ? [] : [sql`name = ${query.name}`]),
        ...(query.currency === undefined ? [] : [sql`currency = ${query.currency}`]),
        ...(beforeId === undefined
          ? []
          : [sql`(effective_from, id) < (${beforeTime}::timestamptz, ${beforeId}::uuid)`]),
      ];
      const rows = await system.query<ListedPricing>(sql`
        SELECT ${pricingColumns}, effective_from::text AS "effectiveFromText" FROM cloud_pod_pricing WHERE ${joinSql(conditions, sql` AND `)}
        ORDER BY effective_from DESC, id DESC LIMIT ${query.limit + 1}`);
      return { status: 200, body: toPage(rows, query.limit, (row) => [row.effectiveFromText, row.id], shown) };
    },
  });
  route(routes, {
    method: "post",
    path,
    summary: "Add a version of a price list; the one before it ends where it begins",
    tags,
    access,
    idempotent: true,
    request: {
      body: newVersion,
      example: {
        name: "standard",
        currency: "USD",
        cpuPerHour: "0.011",
        memoryGbPerHour: "0.005",
        diskGbPerMonth: "0.10",
        networkOutGb: "0.05",
        effectiveFrom: "2030-01-01T00:00:00Z",
      },
    },
    responses: { 201: pricingView },
    async handler({ body }, ctx) {
      const added = await ctx.inSystem(async (tx) => {
        const version = await addVersion(tx, body, body.effectiveFrom ?? ctx.now);
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: undefined,
          action: "pricing.add-version",
          targetType: "pricing",
          targetId: version.id,
          detail: { ...body, effectiveFrom: version.effectiveFrom },
        });
        return version;
      });
      return { status: 201, body: shown(added) };
    },
  });
}

/**
 * Ends the version in force at `from` and adds the new one. What hours were rated with cannot change: the database refuses it.
 * @throws DomainError `conflict` PRICING_USED · PRICING_OVERLAPS · `invalid` PRICING_WITHOUT_TIME
 */
async function addVersion(tx: Transaction, wish: z.output<typeof newVersion>, from: Date): Promise<Pricing> {
  if (wish.effectiveUntil !== null && wish.effectiveUntil <= from) {
    throw new DomainError("invalid", "PRICING_WITHOUT_TIME", "A version must end after it begins.", {
      errors: [{ pointer: "/effectiveUntil", detail: "must be later than effectiveFrom" }],
    });
  }
  try {
    const [before] = await tx.query<{ isDefault: boolean }>(sql`
      UPDATE cloud_pod_pricing SET effective_until = ${from}
      WHERE name = ${wish.name} AND currency = ${wish.currency} AND effective_from < ${from} AND effective_until IS NULL
      RETURNING is_default AS "isDefault"`);
    return await insertVersion(tx, { ...wish, isDefault: wish.isDefault ?? before?.isDefault ?? false }, from);
  } catch (error) {
    if (sqlState(error) === "CP002") {
      throw new DomainError("conflict", "PRICING_USED", "Usage of that time was rated already. Choose a later time.");
    }
    if (violatedConstraint(error)?.endsWith("_pricing_at_a_time") === true) {
      throw new DomainError("conflict", "PRICING_OVERLAPS", "Another version is decided for a part of that time.");
    }
    throw error;
  }
}

async function insertVersion(
  tx: Queryable,
  wish: z.output<typeof newVersion> & { readonly isDefault: boolean },
  from: Date,
): Promise<Pricing> {
  const [added] = await tx.query<Pricing>(sql`
    INSERT INTO cloud_pod_pricing (id, name, currency, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, network_in_gb,
      network_in_free, is_default, effective_from, effective_until)
    VALUES (${newId()}, ${wish.name}, ${wish.currency}, ${wish.cpuPerHour}, ${wish.memoryGbPerHour}, ${wish.diskGbPerMonth},
      ${wish.networkOutGb}, ${wish.networkInGb}, ${wish.networkInFree}, ${wish.isDefault}, ${from}, ${wish.effectiveUntil})
    RETURNING ${pricingColumns}`);
  if (added === undefined) throw new Error("an INSERT gives its row");
  return added;
}

function shown(row: Pricing) {
  const inUsd = (amount: string): string | undefined => (row.currency === "USD" ? text(amount) : undefined);
  const text = (amount: string): string => Money.of(amount, row.currency).toString();
  return {
    ...row,
    cpuPerHour: text(row.cpuPerHour),
    cpuPerHourUsd: inUsd(row.cpuPerHour),
    memoryGbPerHour: text(row.memoryGbPerHour),
    memoryGbPerHourUsd: inUsd(row.memoryGbPerHour),
    diskGbPerMonth: text(row.diskGbPerMonth),
    diskGbPerMonthUsd: inUsd(row.diskGbPerMonth),
    networkOutGb: text(row.networkOutGb),
    networkOutGbUsd: inUsd(row.networkOutGb),
    networkInGb: text(row.networkInGb),
  };
}
