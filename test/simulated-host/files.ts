import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { errorCode } from "./failure.ts";

let temporaryNames = 0;

/** Writes a whole file by rename, so that a reader sees the old or the new text and never half. */
export function replaceFile(path: string, text: string): void {
  temporaryNames += 1;
  const temporary = `${path}.tmp.${process.pid}.${temporaryNames}`;
  writeFileSync(temporary, text);
  try {
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Like `replaceFile`, and makes the folders above it. */
export function replaceFileDeep(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  replaceFile(path, text);
}

/** The text of a file, or undefined when there is none. */
export function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** The names in a folder, sorted; none when it does not exist. */
export function namesIn(path: string): string[] {
  try {
    return readdirSync(path).toSorted();
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return [];
    throw error;
  }
}

/**
 * Reads a JSON file that only this simulator writes.
 * @returns undefined when the file does not exist
 */
export function readState<T>(path: string): T | undefined {
  const text = readIfPresent(path);
  if (text === undefined) return undefined;
  // The simulator is the file's only writer, always by whole-file rename with a value of this type.
  return JSON.parse(text, reviveBigints) as T;
}

/** Writes a state file for `readState`; bigints survive the trip as `{"$n": "…"}`. */
export function writeState(path: string, value: object): void {
  replaceFileDeep(path, `${JSON.stringify(value, writeBigints)}\n`);
}

function writeBigints(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? { $n: value.toString() } : value;
}

function reviveBigints(_key: string, value: unknown): unknown {
  if (typeof value === "object" && value !== null && "$n" in value) return BigInt(String(value.$n));
  return value;
}
