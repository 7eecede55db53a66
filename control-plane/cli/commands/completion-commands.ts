import { Argument, type Command } from "commander";
import { complete } from "../completion/complete.ts";
import { completionCommand, completionScripts, filesWord, shells, type Shell } from "../completion/shells.ts";

/** Adds the scripts for shells, and what they ask. */
export function addCompletionCommands(program: Command): void {
  program
    .command("completion")
    .description("print the script that completes commands in a shell")
    .addArgument(new Argument("<shell>", 'in its start-up file: eval "$(cloudpods completion bash)"').choices(shells))
    .action((shell: Shell) => void process.stdout.write(completionScripts[shell]));
  program
    .command(completionCommand, { hidden: true })
    .argument("[words...]")
    .allowUnknownOption()
    .action(async (words: readonly string[]) => {
      const { completions, names, told } = complete(program, words);
      if (names === "file") return void process.stdout.write(`${filesWord}\n`);
      const prefix = words.at(-1) ?? "";
      const known =
        names === undefined ? [] : await (await import("../completion/known-names.ts")).knownNames(names, told);
      for (const { word, description } of [...completions, ...known.filter((each) => each.word.startsWith(prefix))])
        process.stdout.write(`${word}\t${description.replaceAll(/\s/g, " ")}\n`);
    });
}
