import { existsSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { DomainError } from "@cloudpods/shared/errors";
import { withDatabase } from "./admin-commands.ts";
import { type Config, ConfigError, readConfig } from "./config.ts";
import { verifyMetering } from "./metering/verify-metering.ts";
import type { Database } from "./platform/database.ts";
import { sql } from "./platform/sql.ts";
import { exportUsage } from "./usage/export-usage.ts";
import { usageMonth, usageMonthOf, type UsageMonth } from "./usage/usage-month.ts";

/** Writes a tenant's charges of a UTC month (this one by default) to the standard output. */
export async function writeUsage({ tenant, month }: { tenant: string; month?: string }): Promise<void> {
  const config = readConfig(process.env);
  requireDatabase(config);
  await withDatabase(config, (system) => writeExport(system, tenant, monthOf(month)));
}

/** Proves that the usage of a UTC month (this one by default) adds up; exits with 1 when it does not. */
export async function verifyMonth(options: { month?: string }): Promise<void> {
  const { yearMonth } = monthOf(options.month);
  const config = readConfig(process.env);
  requireDatabase(config);
  const archives = { directory: config.archiveDirectory, since: new Date(0) };
  const { findings, checked } = await withDatabase(config, (system) => verifyMetering(system, yearMonth, archives));
  for (const { check, podId, period, figure, expected, found } of findings) {
    console.log(`${check} ${podId ?? "-"} ${period}: ${figure} is ${found}, expected ${expected}`);
  }
  console.log(
    `${yearMonth}: ${checked.hours} hours, ${checked.days} days and ${checked.months} months looked at, ${findings.length} rows do not agree.`,
  );
  if (findings.length > 0) process.exitCode = 1;
}

async function writeExport(system: Database, tenant: string, month: UsageMonth): Promise<void> {
  const now = new Date();
  const tenantId = await tenantNamed(system, tenant);
  const parts = await exportUsage({
    tenantId,
    month,
    now,
    read: (work) => system.transaction(work, { tenantId }),
  });
  await pipeline(Readable.from(parts), process.stdout, { end: false });
}

async function tenantNamed(db: Database, name: string): Promise<string> {
  const [tenant] = await db.query<{ id: string }>(
    sql`SELECT id FROM tenants WHERE slug = ${name} OR id::text = lower(${name})`,
  );
  if (tenant === undefined) throw new DomainError("not-found", "TENANT_UNKNOWN", `There is no tenant ${name}.`);
  return tenant.id;
}

function monthOf(text: string | undefined): UsageMonth {
  return text === undefined ? usageMonthOf(new Date()) : usageMonth(text);
}

/** A database that is made for the question is empty, and of nothing everything adds up. @throws ConfigError */
function requireDatabase({ databaseUrl, dataDirectory }: Config): void {
  if (databaseUrl !== undefined || existsSync(join(dataDirectory, "postgres"))) return;
  throw new ConfigError([
    `CLOUDPODS_DATA_DIR: ${dataDirectory} has no database; name the folder that has one, or an external one by CLOUDPODS_DATABASE_URL`,
  ]);
}
