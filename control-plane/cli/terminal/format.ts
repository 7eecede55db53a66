const units = [
  ["d", 86_400],
  ["h", 3_600],
  ["m", 60],
  ["s", 1],
] as const;

/** A duration in its two largest units, e.g. `2d4h`, `3m5s`, `0s`. */
export function formatDuration(ms: number): string {
  let seconds = Math.max(0, Math.floor(ms / 1_000));
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first === -1) return "0s";
  return units
    .slice(first, first + 2)
    .map(([unit, size]) => {
      const count = Math.floor(seconds / size);
      seconds -= count * size;
      return count === 0 ? "" : `${count}${unit}`;
    })
    .join("");
}

/** A time that may be short: below ten seconds with tenths, e.g. `0.3s`. */
export function formatBrief(ms: number): string {
  return ms > 0 && ms < 10_000 ? `${(ms / 1_000).toFixed(1)}s` : formatDuration(ms);
}

/** How long ago an instant was; null for none. */
export function formatAge(instant: string | null, nowMs: number): string | null {
  return instant === null ? null : formatDuration(nowMs - Date.parse(instant));
}

/** Milliseconds of a duration such as `90s`, `10m`, `1h30m`; a plain number is seconds. Undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  if (/^\d{1,7}$/.test(text)) return Number(text) * 1_000;
  const parts = /^(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?$/.exec(text);
  if (parts === null || text === "") return undefined;
  return units.reduce((sum, [, size], at) => sum + Number(parts[at + 1] ?? 0) * size * 1_000, 0);
}

/** Megabytes as people say them: whole gigabytes as such. 1 GB = 1024 MB. */
export function formatMb(mb: number): string {
  if (mb < 1_024) return `${mb} MB`;
  return mb % 1_024 === 0 ? `${mb / 1_024} GB` : `${(mb / 1_024).toFixed(1)} GB`;
}

const byteUnits = ["B", "KB", "MB", "GB", "TB"] as const;

/** A number of bytes in the unit that fits it, of powers of 1024: `512 B`, `3.2 KB`, `1.0 GB`. */
export function formatBytes(bytes: number): string {
  const power = Math.min(byteUnits.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const value = bytes / 1_024 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${byteUnits[power]}`;
}

const mbOf: Readonly<Record<string, number>> = { m: 1, g: 1_024, t: 1_024 * 1_024 };

/** Megabytes of a size such as `2048`, `512M`, `2G`; a plain number is in `plainUnit`. Undefined for anything else. */
export function parseSizeMb(text: string, plainUnit: "m" | "g"): number | undefined {
  const [, count, unit] = /^(\d{1,9})\s*([mgt])?(?:i?b)?$/i.exec(text) ?? [];
  const size = mbOf[unit?.toLowerCase() ?? plainUnit];
  return count === undefined || size === undefined ? undefined : Number(count) * size;
}

/** `a=b` as a pair; undefined for anything else. */
export function parsePair(text: string): readonly [string, string] | undefined {
  const at = text.indexOf("=");
  return at < 1 ? undefined : [text.slice(0, at), text.slice(at + 1)];
}

/** `1 node`, `2 nodes`; `several` for nouns that take more than an s. */
export function countOf(count: number, noun: string, several = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : several}`;
}

/** Text of others without what would command a terminal: control characters and changes of direction. */
export function harmless(text: string): string {
  return text.replaceAll(/[^\P{Cc}\n\t]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");
}

const segmenter = new Intl.Segmenter();

/** The characters of a text as people count them. */
export function charactersOf(text: string): string[] {
  return Array.from(segmenter.segment(text), ({ segment }) => segment);
}
