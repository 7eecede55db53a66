import { harmless } from "./format.ts";

/** Where a command says what. */
export interface Output {
  /** The result, for people. */
  print(text: string): void;
  /** The result, for scripts: as it is. */
  raw(text: string): void;
  /** Everything that is no result. */
  note(text: string): void;
}

/** Results to the standard output, everything else to the standard error. */
export const output: Output = {
  print: (text) => void process.stdout.write(`${harmless(text)}\n`),
  raw: (text) => void process.stdout.write(`${text}\n`),
  note: (text) => void process.stderr.write(`${harmless(text)}\n`),
};
