import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { UsageError } from "../errors.ts";

/** Asks at the terminal. @throws UsageError when there is none */
export async function ask(question: string): Promise<string> {
  return await askAt(question, process.stderr);
}

/** Asks without showing what is typed. @throws UsageError when there is no terminal */
export async function askSecret(question: string): Promise<string> {
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  if (canAsk()) process.stderr.write(question);
  const answer = await askAt("", silent);
  process.stderr.write("\n");
  return answer;
}

/** The first line of the standard input, for secrets that a script hands over. @throws UsageError when there is none */
export async function readSecretLine(what: string): Promise<string> {
  const lines = createInterface({ input: process.stdin });
  for await (const line of lines) {
    lines.close();
    if (line !== "") return line;
  }
  throw new UsageError(`no ${what} came over the standard input`);
}

/** Whether somebody can be asked. */
export function canAsk(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}

async function askAt(question: string, shownAt: Writable): Promise<string> {
  if (!canAsk()) throw new UsageError("there is no terminal to ask at; say it by options (see --help)");
  const lines = createInterface({ input: process.stdin, output: shownAt, terminal: true });
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once("close", () => reject(new UsageError("nothing was answered")));
      lines.once("SIGINT", () => process.kill(process.pid, "SIGINT"));
      lines.question(question, resolve);
    });
  } finally {
    lines.close();
  }
}
