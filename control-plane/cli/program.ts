import { Command, Help, type Option } from "commander";
import { readVersion } from "../src/version.ts";
import { addAccountCommands } from "./commands/account-commands.ts";
import { addCompletionCommands } from "./commands/completion-commands.ts";
import { addNodeCommands } from "./commands/node-commands.ts";
import { addPlacementCommands } from "./commands/placement-commands.ts";
import { addPodCommands } from "./commands/pod-commands.ts";
import { addServerCommands } from "./commands/server-commands.ts";
import { addSessionCommands } from "./commands/session-commands.ts";
import { addTaskCommands } from "./commands/task-commands.ts";
import { commonGroup } from "./client-command.ts";
import { exitCodes } from "./exit-codes.ts";

/** Every command of the program; what a command needs is loaded when it runs. */
export function buildProgram(): Command {
  const program = new Command("cloudpods")
    .description("Turns Proxmox VE hosts into a hosting company.")
    .version(readVersion())
    .showHelpAfterError("(cloudpods --help, or --help after any command, tells more)")
    .exitOverride()
    .configureHelp({ groupItems: commonLast })
    .addHelpText("after", afterHelp());
  program.commandsGroup("Signing in:");
  addSessionCommands(program);
  program.commandsGroup("Pods and their work:");
  addPodCommands(program);
  addTaskCommands(program);
  const usage = addAccountCommands(program);
  program.commandsGroup("Hosts and placement:");
  addNodeCommands(program);
  addPlacementCommands(program);
  program.commandsGroup("On the control plane's machine:");
  addServerCommands(program, usage);
  program.commandsGroup("This program:").helpCommand(true);
  addCompletionCommands(program);
  return program;
}

/** What all commands have comes after what one has. */
function commonLast<Item extends Command | Option>(
  this: Help,
  all: Item[],
  visible: Item[],
  groupOf: (item: Item) => string,
): Map<string, Item[]> {
  const groups = Help.prototype.groupItems.call<Help, [Item[], Item[], typeof groupOf], Map<string, Item[]>>(
    this,
    all,
    visible,
    groupOf,
  );
  const common = groups.get(commonGroup);
  if (common !== undefined && groups.delete(commonGroup)) groups.set(commonGroup, common);
  return groups;
}

function afterHelp(): string {
  const lines = Object.values(exitCodes).map(({ code, meaning }) => `  ${String(code).padStart(3)}  ${meaning}`);
  return [
    "",
    "Environment:",
    "  CLOUDPODS_API_URL  address of the control plane, before the profile's",
    "  CLOUDPODS_TOKEN    session or API token, before the profile's",
    "  CLOUDPODS_PROFILE  name of the profile",
    "",
    "Exit codes:",
    ...lines,
  ].join("\n");
}
