import type { Writable } from "node:stream";
import { charactersOf, harmless } from "./format.ts";

/** How far some work is. */
export interface ProgressLine {
  readonly percent: number;
  readonly step: string;
  readonly message: string;
}

/** Shows how far work is. */
export interface Progress {
  show(line: ProgressLine): void;
  /** Leaves what was shown last. */
  end(): void;
}

const barWidth = 24;
const eraseLine = "\r\u001b[2K";

/** A bar of `width` places; it is full at 100 % only. */
export function progressBar(percent: number, width: number): string {
  const full = Math.floor((Math.min(100, Math.max(0, percent)) / 100) * width);
  return `[${"#".repeat(full)}${".".repeat(width - full)}]`;
}

/** On a terminal one line that changes, elsewhere a line for every change. */
export function createProgress(
  stream: Writable & { readonly isTTY?: boolean; readonly columns?: number },
  label: string,
): Progress {
  let last = "";
  return {
    show({ percent, step, message }) {
      const said = message === "" || message === step ? step : `${step}: ${message}`;
      const text = harmless(`${String(percent).padStart(3)} % ${said}`).replaceAll(/\s+/g, " ");
      if (text === last) return;
      last = text;
      if (stream.isTTY !== true) return void stream.write(`${harmless(label)} ${text.trimStart()}\n`);
      // Some terminals say that they have no columns.
      const line = `${harmless(label)} ${progressBar(percent, barWidth)} ${text}`;
      stream.write(
        eraseLine +
          charactersOf(line)
            .slice(0, (stream.columns || 80) - 1)
            .join(""),
      );
    },
    end() {
      if (stream.isTTY === true && last !== "") stream.write("\n");
    },
  };
}
