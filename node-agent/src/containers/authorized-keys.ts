import { createHash } from "node:crypto";
import { checkedSshKey } from "../pct/argument-values.ts";

/** The lines between which `pct create --ssh-public-keys` itself keeps its keys. */
const BEGIN = "# --- BEGIN PVE ---";
const END = "# --- END PVE ---";

/** Digest under which the marker remembers which keys were written. */
export function keysDigest(keys: readonly string[]): string {
  if (keys.length === 0) return "none";
  return createHash("sha256").update(keysText(keys)).digest("hex").slice(0, 16);
}

/** The keys in authorized_keys format. @throws AgentError INVALID_ARGUMENT for anything but a plain key line */
export function keysText(keys: readonly string[]): string {
  return keys.map((key) => `${checkedSshKey(key)}\n`).join("");
}

/**
 * A root's authorized_keys with our block replaced by `keys` (in authorized_keys format, may be
 * empty) and every other line kept: the customer may have added keys by hand.
 */
export function mergeAuthorizedKeys(existing: string, keys: string): string {
  const kept: string[] = [];
  let inBlock = false;
  for (const line of existing.split("\n")) {
    if (line.trim() === BEGIN) inBlock = true;
    else if (inBlock && line.trim() === END) inBlock = false;
    else if (!inBlock) kept.push(line);
  }
  while (kept.at(-1)?.trim() === "") kept.pop();
  const others = kept.map((line) => `${line}\n`).join("");
  return keys === "" ? others : `${others}${BEGIN}\n${keys}${END}\n`;
}
