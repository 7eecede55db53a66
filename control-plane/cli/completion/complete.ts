import type { Command, Option } from "commander";

/** A word that could come next. */
export interface Completion {
  readonly word: string;
  readonly description: string;
}

/** Names that no command line holds: the profiles' file or the control plane knows them; or the shell, of files. */
export type NameKind = "profile" | "node" | "pod" | "plan" | "file";

/** What comes next. */
export interface Continuation {
  /** Words that the program knows itself. */
  readonly completions: readonly Completion[];
  /** Names that are due beside them. */
  readonly names: NameKind | undefined;
  /** What the line says about who asks whom. */
  readonly told: { readonly profile?: string; readonly tenant?: string };
}

const namesByOption: Readonly<Record<string, NameKind>> = {
  profile: "profile",
  plan: "plan",
  node: "node",
  target: "node",
  replaces: "node",
  pod: "pod",
  sshKeyFile: "file",
  out: "file",
};
const namesByArgument: Readonly<Record<string, NameKind>> = {
  profile: "profile",
  node: "node",
  pod: "pod",
  plan: "plan",
};

/** What could stand for the last of `words`, the words after the program's name up to the cursor. */
export function complete(program: Command, words: readonly string[]): Continuation {
  const before = words.slice(0, -1);
  const prefix = words.at(-1) ?? "";
  const { command, pending, operands, told } = walk(program, before);
  const candidates = pending === undefined ? nextWords(command, prefix, operands) : choicesOf(pending.argChoices);
  return {
    completions: candidates.filter(({ word }) => word.startsWith(prefix)),
    names: pending === undefined ? namesOfOperand(command, prefix, operands) : namesByOption[pending.attributeName()],
    told,
  };
}

function namesOfOperand(command: Command, prefix: string, operands: number): NameKind | undefined {
  const argument = prefix.startsWith("-") ? undefined : command.registeredArguments[operands];
  return argument === undefined ? undefined : namesByArgument[argument.name()];
}

interface Place {
  readonly command: Command;
  /** An option that waits for its value. */
  readonly pending: Option | undefined;
  /** How many operands the command has so far. */
  readonly operands: number;
  /** Values of options so far, by name. */
  readonly told: Readonly<Record<string, string>>;
}

function walk(program: Command, words: readonly string[]): Place {
  let place: Place = { command: program, pending: undefined, operands: 0, told: {} };
  for (const word of words) place = step(place, word);
  return place;
}

function step({ command, pending, operands, told }: Place, word: string): Place {
  if (pending !== undefined)
    return { command, pending: undefined, operands, told: { ...told, [pending.attributeName()]: word } };
  if (word.startsWith("-")) {
    const option = optionsOf(command).find(({ long, short }) => word === long || word === short);
    return { command, pending: option?.required === true ? option : undefined, operands, told };
  }
  const below = command.commands.find((known) => known.name() === word || known.aliases().includes(word));
  return below === undefined
    ? { command, pending: undefined, operands: operands + 1, told }
    : { command: below, pending: undefined, operands: 0, told };
}

function nextWords(command: Command, prefix: string, operands: number): Completion[] {
  if (prefix.startsWith("-"))
    return optionsOf(command).flatMap(({ long, description }) =>
      long === undefined || long === null ? [] : [{ word: long, description }],
    );
  const argument = command.registeredArguments[operands];
  return [...subcommandsOf(command), ...choicesOf(argument?.argChoices)];
}

function subcommandsOf(command: Command): Completion[] {
  const visible = command.createHelp().visibleCommands(command);
  return visible.map((below) => ({ word: below.name(), description: below.description() }));
}

function optionsOf(command: Command): Option[] {
  return command.createHelp().visibleOptions(command);
}

function choicesOf(choices: readonly string[] | undefined): Completion[] {
  return (choices ?? []).map((word) => ({ word, description: "" }));
}
