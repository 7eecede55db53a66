import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { InvalidArgumentError, type Command } from "commander";
import { withDatabase } from "./admin-commands.ts";
import type { Config } from "./config.ts";
import { verifyMetering } from "./metering/verify-metering.ts";
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

/** Adds the proof that usage adds up; exits with 1 when it does not. */
export function addMeteringCommands(
  program: Command,
  run: (work: (config: Config) => Promise<void>) => Promise<void>,
): void {
  program
    .command("metering")
    .description("what was measured")
    .command("verify")
    .description("prove that samples, hours, days, months and bills of a UTC month agree, and name what does not")
    .option("--month <YYYY-MM>", "UTC; default: this month", monthOption)
    .action(async (options: { month?: UsageMonth }) => {
      await run(async (config) => {
        const month = options.month ?? usageMonthOf(new Date());
        const { findings, checked } = await withDatabase(config, (system) => verifyMetering(system, month.yearMonth));
        for (const { check, podId, period, figure, expected, found } of findings) {
          console.log(`${check} ${podId ?? "-"} ${period}: ${figure} is ${found}, expected ${expected}`);
        }
        console.log(
          `${month.yearMonth}: ${checked.hours} hours, ${checked.days} days and ${checked.months} months looked at, ${findings.length} rows do not agree.`,
        );
        if (findings.length > 0) process.exitCode = 1;
      });
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
