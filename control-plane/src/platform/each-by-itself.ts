import type { Logger } from "pino";

/** How failures of single things are told. */
export interface Telling<T> {
  readonly log: Logger;
  /** What could not be done. */
  readonly message: string;
  /** Which of them it was. */
  readonly fields: (thing: T) => Readonly<Record<string, unknown>>;
}

/**
 * Works on one thing after the other. One that throws is told and left; the others shall not wait for it.
 * @returns how many threw
 */
export async function eachByItself<T>(
  things: readonly T[],
  { log, message, fields }: Telling<T>,
  work: (thing: T) => Promise<void>,
): Promise<number> {
  let failed = 0;
  for (const thing of things) {
    try {
      await work(thing);
    } catch (error) {
      failed += 1;
      log.warn({ err: error, ...fields(thing) }, message);
    }
  }
  return failed;
}
