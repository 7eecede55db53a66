import { CommandFailure } from "./failure.ts";

/** How an option takes its value: a string always takes the next word, a boolean only a plain one. */
export type OptionKinds = Map<string, "string" | "boolean">;

/** The words of a command line, sorted into options and the rest. */
interface ParsedWords {
  /** Values in the order given; an option given twice has both. */
  options: Map<string, string[]>;
  rest: string[];
}

/**
 * Reads words as Perl's Getopt::Long does for the Proxmox tools: options begin with `-` or `--`,
 * may stand anywhere before a bare `--`, ignore case and may be cut to any unique beginning. A
 * positional word that begins with a dash is therefore taken for an option.
 * @throws CommandFailure with one line for each word that is no option
 */
export function parseWords(words: string[], kinds: OptionKinds): ParsedWords {
  const options = new Map<string, string[]>();
  const rest: string[] = [];
  const complaints: string[] = [];
  const queue = [...words];
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    if (word === "--") {
      rest.push(...queue);
      break;
    }
    const [, written, attached] = /^--?([^=\s][^=]*)(?:=([\s\S]*))?$/u.exec(word) ?? [];
    if (written === undefined) {
      rest.push(word);
      continue;
    }
    const name = resolve(written, kinds, complaints);
    if (name === undefined) continue;
    const value = takeValue(kinds.get(name) ?? "string", attached, queue);
    if (value === undefined) {
      complaints.push(`Option ${written} requires an argument`);
      continue;
    }
    options.set(name, [...(options.get(name) ?? []), value]);
  }
  if (complaints.length > 0) {
    throw new CommandFailure(`${complaints.join("\n")}\n400 unable to parse option`);
  }
  return { options, rest };
}

function resolve(written: string, kinds: OptionKinds, complaints: string[]): string | undefined {
  const wanted = written.toLowerCase();
  if (kinds.has(wanted)) return wanted;
  const candidates = [...kinds.keys()].filter((name) => name.startsWith(wanted)).toSorted();
  const [only] = candidates;
  if (candidates.length === 1) return only;
  complaints.push(
    candidates.length === 0
      ? `Unknown option: ${written}`
      : `Option ${written} is ambiguous (${candidates.join(", ")})`,
  );
  return undefined;
}

function takeValue(kind: "string" | "boolean", attached: string | undefined, queue: string[]): string | undefined {
  if (attached !== undefined) return attached;
  if (kind === "string") return queue.shift();
  const next = queue[0];
  if (next === undefined || /^-./u.test(next)) return "";
  return queue.shift();
}
