import { UsageError } from "./errors.ts";
import { ask, canAsk } from "./terminal/ask.ts";

/** Lets the name of what is going to be lost be typed. @throws UsageError when it is not, or nobody can be asked */
export async function confirm(what: string, name: string, isSure: boolean): Promise<void> {
  if (isSure) return;
  if (!canAsk()) throw new UsageError(`${what}. Nobody can be asked here: say by --yes that it is meant.`);
  if ((await ask(`${what}. Type ${name} to go on: `)) !== name) throw new UsageError("Nothing was done.");
}
