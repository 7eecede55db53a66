import { writeSync } from "node:fs";
import { CommandFailure, errorCode } from "./failure.ts";

/** Writes to stdout. @throws CommandFailure `broken pipe` when nobody reads it any more */
export function print(text: string): void {
  writeAll(1, text);
}

/** Writes a line to stdout. */
export function printLine(line: string): void {
  writeAll(1, `${line}\n`);
}

/** Writes to stderr; a reader that has gone away is no failure of its own. */
export function printError(text: string): void {
  try {
    writeAll(2, text);
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
  }
}

/** Writes to a file descriptor as a blocking process does. @throws CommandFailure `broken pipe` */
export function writeAll(descriptor: number, text: string | Uint8Array): void {
  let rest = typeof text === "string" ? Buffer.from(text, "utf8") : text;
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(descriptor, rest));
    } catch (error) {
      if (errorCode(error) === "EPIPE") throw new CommandFailure("broken pipe");
      if (errorCode(error) !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}
