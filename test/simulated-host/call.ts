import { CommandFailure } from "./failure.ts";
import type { FaultEffect } from "./faults.ts";
import { parseWords } from "./getopt.ts";
import type { Host } from "./layout.ts";
import { checkValue, parseBoolean } from "./option-schema.ts";
import type { OptionRule, OptionRules } from "./option-schema.ts";

/** One command line, checked. */
export interface Call {
  host: Host;
  program: string;
  command: string;
  /** Positional words by name. */
  words: Record<string, string>;
  /** Options by name; booleans are `0` or `1`. */
  options: Record<string, string>;
  /** What follows the positional words of a command that takes any. */
  extra: string[];
  effects: FaultEffect[];
}

/** A subcommand: its positional words in order, its options and what it does. */
export interface Command {
  words: [name: string, rule: OptionRule][];
  options: OptionRules;
  takesExtra?: boolean;
  /** @returns the exit code, 0 when nothing is said */
  run: (call: Call) => Promise<number | void> | number | void;
}

/** The usage line that follows a complaint about parameters. */
export function usage(program: string, name: string, command: Command): string {
  const words = command.words.map(([word]) => ` <${word}>`).join("");
  const extra = command.takesExtra === true ? " [<extra-args>]" : "";
  const rest = Object.keys(command.options).length > 0 ? " [OPTIONS]" : "";
  return [program, name].filter((part) => part !== "").join(" ") + words + extra + rest;
}

/**
 * Sorts and checks the words of a command line.
 * @throws CommandFailure `400 Parameter verification failed.` and its relatives
 */
export function readCall(host: Host, program: string, name: string, command: Command, argv: string[]): Call {
  const line = usage(program, name, command);
  const rules: OptionRules = { ...command.options, ...Object.fromEntries(command.words) };
  const kinds = new Map(Object.entries(rules).map(([option, rule]) => [option, rule.type]));
  const { options: given, rest } = withUsage(line, () => parseWords(argv, kinds));
  const words: Record<string, string> = {};
  for (const [word] of command.words) {
    const value = rest.shift();
    if (value === undefined) throw new CommandFailure(`400 not enough arguments\n${line}`);
    words[word] = value;
  }
  if (rest.length > 0 && command.takesExtra !== true) {
    throw new CommandFailure(`400 too many arguments\n${line}`);
  }
  const options: Record<string, string> = {};
  const complaints: string[] = [];
  const values = [...[...given].map(([key, all]) => [key, all.at(-1) ?? ""]), ...Object.entries(words)];
  for (const [key = "", value = ""] of values) {
    const rule = rules[key];
    const complaint = rule === undefined ? undefined : checkValue(rule, value);
    if (complaint !== undefined) complaints.push(`${key}: ${complaint}`);
    else if (!(key in words)) {
      options[key] = rule?.type === "boolean" ? (parseBoolean(value) ?? value) : value;
    }
  }
  if (complaints.length > 0) {
    const all = complaints.toSorted().join("\n");
    throw new CommandFailure(`400 Parameter verification failed.\n${all}\n${line}`, 2);
  }
  return { host, program, command: name, words, options, extra: rest, effects: [] };
}

function withUsage<T>(line: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof CommandFailure) throw new CommandFailure(`${error.message}\n${line}`);
    throw error;
  }
}

/** The container that a call is about. */
export function vmidOf(call: Call): number {
  return Number(call.words["vmid"]);
}

/** True when a switch is given and on. */
export function isOn(call: Call, option: string): boolean {
  return call.options[option] === "1";
}
