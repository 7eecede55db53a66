import { findingKinds } from "@cloudpods/shared/finding-kinds";
import { InvalidArgumentError, Option, type Argument, type Command } from "commander";
import {
  addWaitOptions,
  clientCommand,
  count,
  idOf,
  withCli,
  type ClientOptions,
  type WaitOptions,
} from "../client-command.ts";
import { finishWork } from "../finish-work.ts";
import { listAll } from "../open-cli.ts";
import { describeDecision, renderFindings } from "../views/finding-views.ts";

interface FindingOptions extends ClientOptions {
  readonly node?: string;
  readonly kind?: string;
  readonly state?: string;
  readonly limit: number;
}

const remedies = ["accept", "repair", "remove", "dismiss"];

const whatTheyDo = `
accept   the pod becomes as its host shows it; one that was resized has no plan any more and is paid by use; one that was given
         up with its host is that host's again, as it was, and is paid for from then on
repair   the container becomes as the pod is; one that is missing is restored from the newest backup; left archives are tried again
remove   the container goes; of a missing one the pod is destroyed
dismiss  all is left as it is until it changes
Containers that nobody manages become pods by: cloudpods pods adopt`;

/** Adds what is not as it should be on hosts, and what to do about it. */
export function addFindingCommands(nodes: Command): void {
  clientCommand(nodes, "findings", "what is not as it should be on hosts")
    .option("--node <node>", "only those of a host, by name or id")
    .addOption(new Option("--kind <kind>", "only those").choices(findingKinds))
    .addOption(new Option("--state <state>", "instead of open ones").choices(["open", "dismissed", "resolved"]))
    .option("--limit <number>", "show so many at most", count, 1_000)
    .action(async (options: FindingOptions) => {
      await withCli(options, async (cli) => {
        const { node, kind, state, limit } = options;
        const answer = await listAll(cli, "listFindings", { query: { node, kind, state } }, limit);
        cli.show(answer, ({ data }) => renderFindings(data, Date.now()));
      });
    });
  clientCommand(nodes, "resolve", "decide about a finding")
    .argument("<finding>", "id", idOf("finding", "nodes findings"))
    .addArgument(remedyOf(nodes.createArgument("<action>", "one that it offers").choices(remedies)))
    .requiredOption("--reason <text>", "why; it is in the audit log")
    .addHelpText("after", whatTheyDo)
    .action(async (finding: string, action: string, { reason, ...options }: ClientOptions & { reason: string }) => {
      await withCli(options, async (cli) => {
        const answer = await cli.api.call("resolveFinding", { finding, body: { action, reason } });
        cli.show(answer, (decided) => describeDecision(decided, action));
      });
    });
}

/** Adopting is offered too, but needs to be told more than a reason. */
function remedyOf(action: Argument): Argument {
  return action.argParser((text: string) => {
    if (remedies.includes(text)) return text;
    throw new InvalidArgumentError(
      text === "adopt"
        ? "Say whose it becomes: cloudpods pods adopt <vmid> --node <node> --to <tenant>"
        : `Allowed choices are ${remedies.join(", ")}.`,
    );
  });
}

interface AdoptOptions extends ClientOptions, WaitOptions {
  readonly node: string;
  readonly to: string;
  readonly plan?: string;
  readonly name?: string;
}

/** Adds the adoption of containers that nobody manages. */
export function addAdoptCommand(pods: Command): void {
  addWaitOptions(clientCommand(pods, "adopt", "make a container on a host a tenant's pod, as it is"))
    .argument("<vmid>", "of the container", count)
    .requiredOption("--node <node>", "name or id of its host")
    .requiredOption("--to <tenant>", "slug or id of the tenant")
    .option("--plan <code>", "where it has a plan's size; else it is paid by use")
    .option("--name <text>", "for people; default: the host name")
    .action(async (vmid: number, { node, to, plan, name, ...options }: AdoptOptions) => {
      // The pod is looked at in its tenant, which is also where a slug becomes an id.
      await withCli({ ...options, tenant: to }, async (cli) => {
        const body = { node, vmid, tenantId: cli.connection.tenantId, planCode: plan, name };
        await finishWork(cli, await cli.api.call("adoptPod", { body }), options);
      });
    });
}
