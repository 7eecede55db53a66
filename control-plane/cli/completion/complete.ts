import type { Command, Option } from "commander";

/** A word that could come next. */
export interface Completion {
  readonly word: string;
  readonly description: string;
}

/** What could stand for the last of `words`, the words after the program's name up to the cursor. */
export function complete(program: Command, words: readonly string[]): Completion[] {
  const before = words.slice(0, -1);
  const prefix = words.at(-1) ?? "";
  const { command, pending, operands } = walk(program, before);
  const candidates = pending === undefined ? nextWords(command, prefix, operands) : choicesOf(pending.argChoices);
  return candidates.filter(({ word }) => word.startsWith(prefix));
}

interface Place {
  readonly command: Command;
  /** An option that waits for its value. */
  readonly pending: Option | undefined;
  /** How many operands the command has so far. */
  readonly operands: number;
}

function walk(program: Command, words: readonly string[]): Place {
  let place: Place = { command: program, pending: undefined, operands: 0 };
  for (const word of words) place = step(place, word);
  return place;
}

function step({ command, pending, operands }: Place, word: string): Place {
  if (pending !== undefined) return { command, pending: undefined, operands };
  if (word.startsWith("-")) {
    const option = optionsOf(command).find(({ long, short }) => word === long || word === short);
    return { command, pending: option?.required === true ? option : undefined, operands };
  }
  const below = command.commands.find((known) => known.name() === word || known.aliases().includes(word));
  return below === undefined
    ? { command, pending: undefined, operands: operands + 1 }
    : { command: below, pending: undefined, operands: 0 };
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
