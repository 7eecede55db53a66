import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { InvalidArgumentError, type Command } from "commander";
import { withDatabase } from "./admin-commands.ts";
import type { Config } from "./config.ts";
import type { Database } from "./platform/database.ts";
import { sql } from "./platform/sql.ts";
import { exportUsage } from "./usage/export-usage.ts";
import { usageMonth, usageMonthOf, type UsageMonth } from "./usage/usage-month.ts";

/** Adds the commands about what tenants used; `run` reads the configuration and reports failures. */
export function addUsageCommands(
  program: Command,
  run: (work: (config: Config) => Promise<void>) => Promise<void>,
): void {
  program
    .command("usage")
    .description("what tenants used and what it cost")
    .command("export")
    .description("write a tenant's charges of a UTC month to the standard output, as CSV in FOCUS columns")
    .requiredOption("--tenant <slug or id>")
    .option("--month <YYYY-MM>", "UTC; default: this month", monthOption)
    .action(async (options: { tenant: string; month?: UsageMonth }) => {
      await run((config) => withDatabase(config, (system) => writeExport(system, options.tenant, options.month)));
    });
}

async function writeExport(system: Database, tenant: string, month: UsageMonth | undefined): Promise<void> {
  const now = new Date();
  const tenantId = await tenantNamed(system, tenant);
  const parts = await exportUsage({
    tenantId,
    month: month ?? usageMonthOf(now),
    now,
    read: (work) => system.transaction(work, { tenantId }),
  });
  await pipeline(Readable.from(parts), process.stdout, { end: false });
}

async function tenantNamed(db: Database, name: string): Promise<string> {
  const [tenant] = await db.query<{ id: string }>(
    sql`SELECT id FROM tenants WHERE slug = ${name} OR id::text = lower(${name})`,
  );
  if (tenant === undefined) throw new Error(`There is no tenant ${name}.`);
  return tenant.id;
}

function monthOption(text: string): UsageMonth {
  try {
    return usageMonth(text);
  } catch {
    throw new InvalidArgumentError("A month is written as 2026-01.");
  }
}
