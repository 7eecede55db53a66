/**
 * 64 bits of a text (FNV-1a): spread well enough for names, and at hand without the library of real hashes,
 * which takes a tool as long to load as all the rest of it.
 */
export function hashOf(text: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(text, "utf8")) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}
