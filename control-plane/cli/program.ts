import { type AddHelpTextContext, Command, Help, type Option } from "commander";
import { readVersion } from "../src/version.ts";
import { addAccountCommands } from "./commands/account-commands.ts";
import { addCompletionCommands } from "./commands/completion-commands.ts";
import { addNodeCommands } from "./commands/node-commands.ts";
import { addPlacementCommands } from "./commands/placement-commands.ts";
import { addPodCommands } from "./commands/pod-commands.ts";
import { addServerCommands } from "./commands/server-commands.ts";
import { addSessionCommands } from "./commands/session-commands.ts";
import { addTaskCommands } from "./commands/task-commands.ts";
import { addClientOptions, commonGroup } from "./client-command.ts";
import { exitCodes } from "./exit-codes.ts";

/** Every command of the program; what a command needs is loaded when it runs. */
export function buildProgram(): Command {
  const program = new Command("cloudpods")
    .description("Turns Proxmox VE hosts into a hosting company.")
    .version(readVersion())
    .exitOverride()
    .configureHelp({ groupItems: commonLast })
    // What comes after a command is the command's, so that it can be told where it was not taken.
    .enablePositionalOptions()
    .hook("preSubcommand", passDown)
    .hook("preAction", refuseUnknown)
    .addHelpText("beforeAll", refuseHelpOfNothing)
    .addHelpText("after", afterHelp());
  addClientOptions(program);
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
  program.commandsGroup("This program:");
  addCompletionCommands(program);
  addHelpCommand(program);
  showUsageAfterErrors(program);
  return program;
}

/** Commander's own stops at the first word. */
function addHelpCommand(program: Command): void {
  program
    .command("help")
    .description("display help for command")
    .argument("[command...]")
    .action((words: readonly string[]) => {
      let asked = program;
      for (const word of words) asked = asked.commands.find((below) => below.name() === word) ?? strange(asked, word);
      asked.outputHelp();
    });
}

/** Help is displayed before anybody looks whether what it was asked for is there. */
function refuseHelpOfNothing({ command }: AddHelpTextContext): string {
  const [first, second] = command.args;
  const word = first === "help" && command.parent !== null ? second : first;
  if (word === undefined || word.startsWith("-") || !takesNothingElse(command)) return "";
  return command.commands.some((below) => below.name() === word) ? "" : strange(command, word);
}

/** A word that is none of the commands of `usage` is a pod. */
function takesNothingElse(command: Command): boolean {
  return command.commands.length > 0 && command.name() !== "usage";
}

function strange(command: Command, word: string): never {
  command.error(`error: unknown command '${word}'`);
}

/** Who mistook a command sees how that one is written, not how all of them are. */
function showUsageAfterErrors(command: Command): void {
  const help = command.createHelp();
  const names = help.visibleCommands(command).map((below) => below.name());
  const commands = names.length === 0 ? "" : `\nCommands: ${names.join(", ")}`;
  const usage = help.commandUsage(command);
  command.showHelpAfterError(`Usage: ${usage}${commands}\n(--help after any command tells more)`);
  command.commands.forEach(showUsageAfterErrors);
}

/** Options before the command are as if they were the first after it: what it is told itself comes later. */
function passDown(program: Command, below: Command): void {
  for (const { name } of optionsBefore(program))
    if (knows(below, name)) below.setOptionValueWithSource(name, program.getOptionValue(name), "cli");
  for (const further of below.commands) passDown(program, further);
}

function refuseUnknown(program: Command, command: Command): void {
  for (const { name, flags } of optionsBefore(program))
    if (!knows(command, name)) command.error(`error: option '${flags}' means nothing to ${command.name()}`);
}

function optionsBefore(program: Command): { readonly name: string; readonly flags: string }[] {
  return program.options
    .map((option) => ({ name: option.attributeName(), flags: option.flags }))
    .filter(({ name }) => program.getOptionValueSource(name) === "cli");
}

function knows(command: Command, name: string): boolean {
  return command.options.some((option) => option.attributeName() === name);
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
