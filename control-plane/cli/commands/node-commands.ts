import { nodeRoles } from "@cloudpods/shared/node-roles";
import { Option, type Command } from "commander";
import { clientCommand, count, duration, label, withCli, type ClientOptions } from "../client-command.ts";
import { confirm } from "../confirm.ts";
import { listAll } from "../open-cli.ts";
import { addBackupStorageCommand } from "./backup-policy-commands.ts";
import { addDrainCommands } from "./drain-commands.ts";
import { addFindingCommands } from "./finding-commands.ts";
import { describeJoinToken, describeOpened, renderNode, renderNodes, renderRemoval } from "../views/node-views.ts";

/** Adds everything about hosts. */
export function addNodeCommands(program: Command): void {
  const nodes = program.command("nodes").description("hosts, for operators");
  addReading(nodes);
  addJoining(nodes);
  addCordoning(nodes);
  addBackupStorageCommand(nodes);
  addDrainCommands(nodes);
  addFindingCommands(nodes);
}

interface ListOptions extends ClientOptions {
  readonly state?: string;
  readonly region?: string;
  readonly role?: string;
  readonly limit: number;
}

function addReading(nodes: Command): void {
  clientCommand(nodes, "ls", "hosts by name")
    .addOption(
      new Option("--state <state>", "only those").choices([
        "enrolled",
        "online",
        "degraded",
        "offline",
        "lost",
        "removed",
      ]),
    )
    .option("--region <name>", "only those of a region")
    .addOption(new Option("--role <name>", "only those of a role").choices(nodeRoles))
    .option("--limit <number>", "show so many at most", count, 1_000)
    .action(async (options: ListOptions) => {
      await withCli(options, async (cli) => {
        const { state, region, role } = options;
        const answer = await listAll(cli, "listNodes", { query: { state, region, role } }, options.limit);
        cli.show(answer, ({ data }) => renderNodes(data, Date.now()));
      });
    });
  clientCommand(nodes, "show", "a host with its pods")
    .argument("<node>", "name or id")
    .action(async (node: string, options: ClientOptions) => {
      await withCli(options, async (cli) => {
        cli.show(await cli.api.call("showNode", { node }), (body) => renderNode(body, Date.now()));
      });
    });
}

interface JoinOptions extends ClientOptions {
  readonly region: string;
  readonly role?: string;
  readonly label?: Readonly<Record<string, string>>;
  readonly replaces?: string;
}

function addJoining(nodes: Command): void {
  clientCommand(nodes, "join-token", "make a token with which one host can join within 15 minutes")
    .argument("<name>", "of the host")
    .requiredOption("--region <name>", "where it stands")
    .addOption(new Option("--role <role>", "what it is for").choices(nodeRoles))
    .option("--label <name=value>", "label of the host; several times", label)
    .option("--replaces <node>", "name or id of the host whose identity it takes over")
    .action(async (name: string, { region, role, label: labels, replaces, ...options }: JoinOptions) => {
      await withCli(options, async (cli) => {
        const replacesNode =
          replaces === undefined ? undefined : (await cli.api.call("showNode", { node: replaces })).body.id;
        const answer = await cli.api.call("makeJoinToken", { body: { name, region, role, labels, replacesNode } });
        cli.show(answer, (token) => describeJoinToken(token, cli.connection.baseUrl));
      });
    });
}

interface CordonOptions extends ClientOptions {
  readonly reason: string;
  /** Milliseconds. */
  readonly for?: number;
}

function addCordoning(nodes: Command): void {
  clientCommand(nodes, "cordon", "place nothing new on a host")
    .argument("<node>", "name or id")
    .requiredOption("--reason <text>", "why; others see it")
    .option("--for <duration>", "open the host by itself after that", duration)
    .action(async (node: string, { reason, for: forMs, ...options }: CordonOptions) => {
      await withCli(options, async (cli) => {
        const until = forMs === undefined ? undefined : new Date(Date.now() + forMs).toISOString();
        const answer = await cli.api.call("cordonNode", { node, body: { reason, until } });
        cli.show(answer, ({ name, cordonedUntil }) => {
          const end = cordonedUntil === null ? "" : ` until ${cordonedUntil}`;
          return `${name} takes no new pods${end}: ${reason}`;
        });
      });
    });
  clientCommand(nodes, "uncordon", "allow new pods on a host again")
    .argument("<node>", "name or id")
    .option("--reason <text>", "why; others see it")
    .action(async (node: string, { reason, ...options }: ClientOptions & { readonly reason?: string }) => {
      await withCli(options, async (cli) => {
        const answer = await cli.api.call("uncordonNode", { node, body: { reason } });
        cli.show(answer, describeOpened);
      });
    });
  clientCommand(nodes, "rm", "take an empty host out of the fleet")
    .argument("<node>", "name or id")
    .option("-y, --yes", "do not ask", false)
    .action(async (reference: string, { yes, ...options }: ClientOptions & { readonly yes: boolean }) => {
      await withCli(options, async (cli) => {
        const { id, name } = (await cli.api.call("showNode", { node: reference })).body;
        await confirm(`This takes ${name} out of the fleet and revokes its certificate`, name, yes);
        cli.show(await cli.api.call("removeNode", { node: id }), (removal) => renderRemoval(name, removal));
      });
    });
}
