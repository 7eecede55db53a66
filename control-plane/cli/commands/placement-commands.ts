import type { Command } from "commander";
import {
  clientCommand,
  label,
  podReference,
  waitTimeoutOption,
  withCli,
  type ClientOptions,
} from "../client-command.ts";
import { explainFit, explainPlacement, renderHeadroom } from "../views/placement-views.ts";
import { nameOf } from "../finish-work.ts";
import { renderOverview } from "../views/overview-view.ts";
import { previewProvisioning, proveProvisioning } from "../provision-test.ts";

interface WhyNotOptions extends ClientOptions {
  readonly region?: string;
  readonly template?: string;
  readonly nodeLabel?: Readonly<Record<string, string>>;
}

/** Adds the overview, the questions to the scheduler and the proof that an order would work. */
export function addPlacementCommands(program: Command): void {
  clientCommand(program, "why", "why a pod is where it is")
    .argument("<pod>", "hostname, VMID or id", podReference)
    .action(async (reference: string, options: ClientOptions) => {
      await withCli(options, async (cli) => {
        const answer = await cli.api.call("showPlacement", { pod: reference });
        const name = cli.isJson ? "" : nameOf((await cli.api.call("showPod", { pod: reference })).body);
        cli.show(answer, (placement) => explainPlacement(name, placement));
      });
    });
  clientCommand(program, "why-not", "where a pod of a plan would be placed now, or why nowhere, for operators")
    .argument("<plan>", "its code, also in short: STARTER")
    .option("--region <name>", "only there")
    .option("--template <name>", "only on hosts that have it")
    .option("--node-label <name=value>", "only on hosts with this label; several times", label)
    .action(async (planCode: string, { region, template, nodeLabel, tenant, ...options }: WhyNotOptions) => {
      await withCli({ ...options, ...(tenant === undefined ? {} : { tenant }) }, async (cli) => {
        const tenantId = tenant === undefined ? undefined : cli.connection.tenantId;
        const body = { planCode, region, template, nodeLabels: nodeLabel, tenantId };
        cli.show(await cli.api.call("simulatePlacement", { body }), (verdict) => explainFit(planCode, verdict));
      });
    });
  clientCommand(program, "overview", "the platform at a glance, for operators").action(
    async (options: ClientOptions) => {
      await withCli(options, async (cli) => {
        cli.show(await cli.api.call("showOverview", {}), (body) => renderOverview(body, Date.now()));
      });
    },
  );
  clientCommand(program, "headroom", "how many more pods of each plan fit, for operators").action(
    async (options: ClientOptions) => {
      await withCli(options, async (cli) => {
        cli.show(await cli.api.call("showHeadroom", {}), (body) => renderHeadroom(body, Date.now()));
      });
    },
  );
  addProvisionTest(program);
}

interface ProvisionTestOptions extends ClientOptions {
  readonly dryRun?: true;
  readonly region?: string;
  /** Milliseconds. */
  readonly waitTimeout: number;
}

function addProvisionTest(program: Command): void {
  clientCommand(program, "provision-test", "prove that a plan can be ordered: order a pod, look at it, destroy it")
    .argument("<plan>", "its code, also in short: STARTER")
    .option("--dry-run", "only tell what would happen: quota, place, price, the host's command lines")
    .option("--region <name>", "only there")
    .addOption(waitTimeoutOption())
    .action(async (planCode: string, { dryRun, region, waitTimeout, ...options }: ProvisionTestOptions) => {
      await withCli(options, async (cli) => {
        const order = { planCode, region, hostname: `provision-test-${Date.now().toString(36)}` };
        await (dryRun === true ? previewProvisioning(cli, order) : proveProvisioning(cli, order, waitTimeout));
      });
    });
}
