import type { Command } from "commander";
import {
  clientCommand,
  count,
  podReference,
  withCli,
  addClientOptions,
  type ClientOptions,
} from "../client-command.ts";
import { UsageError } from "../errors.ts";
import { listAll } from "../open-cli.ts";
import {
  renderBudget,
  renderPlans,
  renderPodUsage,
  renderQuota,
  renderTenants,
  renderUsage,
} from "../views/account-views.ts";

/** Adds what can be ordered, how much of it, and what it costs. Gives the group `usage`, to which others add. */
export function addAccountCommands(program: Command): Command {
  clientCommand(program, "plans", "what can be ordered").action(async (options: ClientOptions) => {
    await withCli({ ...options, isPublic: true }, async (cli) => {
      cli.show(await cli.api.call("listPlans", {}), ({ data }) => renderPlans(data));
    });
  });
  const tenants = program.command("tenants").description("who rents, for operators");
  clientCommand(tenants, "ls", "all tenants, newest first")
    .option("--limit <number>", "show so many at most", count, 1_000)
    .action(async (options: ClientOptions & { readonly limit: number }) => {
      await withCli(options, async (cli) => {
        cli.show(await listAll(cli, "listTenants", {}, options.limit), ({ data }) => renderTenants(data));
      });
    });
  clientCommand(program, "quota", "how much the tenant may have and has").action(async (options: ClientOptions) => {
    await withCli(options, async (cli) => cli.show(await cli.api.call("showQuota", {}), renderQuota));
  });
  clientCommand(program, "budget", "the monthly budget and where it stands").action(async (options: ClientOptions) => {
    await withCli(options, async (cli) => cli.show(await cli.api.call("showBudget", {}), renderBudget));
  });
  const usage = program.command("usage").description("what was used and what it cost");
  // Options of a command would be taken from the commands below it: `usage export` has its own --tenant.
  addClientOptions(usage.command("show", { isDefault: true }))
    .description("this month so far; of a pod by day")
    .argument("[pod]", "hostname, VMID or id", podReference)
    .option("--days <number>", "of a pod: so many days; by default 14", count)
    .action(async (pod: string | undefined, { days, ...options }: ClientOptions & { readonly days?: number }) => {
      if (pod === undefined && days !== undefined) throw new UsageError("--days is for a pod: name it.");
      await withCli(options, async (cli) => {
        if (pod === undefined) cli.show(await cli.api.call("showUsage", {}), renderUsage);
        else cli.show(await cli.api.call("showPodUsage", { pod, query: { days: days ?? 14 } }), renderPodUsage);
      });
    });
  return usage;
}
