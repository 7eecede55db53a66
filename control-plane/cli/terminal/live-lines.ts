import type { Writable } from "node:stream";
import { charactersOf, harmless } from "./format.ts";

const eraseBelow = "\r\u001b[J";

/**
 * Shows lines that change: on a terminal they are drawn over those before them, as many as it has room for; elsewhere a
 * line is written when it is new.
 */
export function createLiveLines(
  stream: Writable & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number },
): (lines: readonly string[]) => void {
  let before: readonly string[] = [];
  return (lines) => {
    const texts = lines.map((line) => harmless(line).replaceAll(/\s/g, " "));
    if (stream.isTTY !== true) {
      const known = new Set(before);
      for (const text of texts) if (!known.has(text)) stream.write(`${text}\n`);
      before = texts;
      return;
    }
    // Some terminals say that they have no columns and no rows.
    const width = (stream.columns || 80) - 1;
    const drawn = texts
      .slice(0, Math.max(1, (stream.rows || 24) - 1))
      .map((text) => charactersOf(text).slice(0, width).join(""));
    if (drawn.join("\n") === before.join("\n")) return;
    const up = before.length === 0 ? "" : `\u001b[${before.length}A`;
    stream.write(up + eraseBelow + drawn.map((text) => `${text}\n`).join(""));
    before = drawn;
  };
}
