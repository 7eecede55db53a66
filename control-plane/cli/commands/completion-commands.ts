import { Argument, type Command } from "commander";
import { complete } from "../completion/complete.ts";
import { completionCommand, completionScripts, shells, type Shell } from "../completion/shells.ts";

/** Adds the scripts for shells, and what they ask. */
export function addCompletionCommands(program: Command): void {
  program
    .command("completion")
    .description("print the script that completes commands in a shell")
    .addArgument(new Argument("<shell>").choices(shells))
    .action((shell: Shell) => void process.stdout.write(completionScripts[shell]));
  program
    .command(completionCommand, { hidden: true })
    .argument("[words...]")
    .allowUnknownOption()
    .action((words: readonly string[]) => {
      for (const { word, description } of complete(program, words))
        process.stdout.write(`${word}\t${description.replaceAll("\n", " ")}\n`);
    });
}
