import { formatMb } from "../terminal/format.ts";

/** What is better said in other words than its member's name. */
const words: Readonly<Record<string, string>> = {
  memoryMb: "memory",
  swapMb: "swap",
  diskGb: "disk",
  ip: "address",
  inForce: "generation in force",
  ofTheSameId: "of the same id",
  underItsId: "under its id",
};

/** The order in which people look at it; the database has an order of its own. What is not named comes last. */
const order = "pod node seen wanted power cores memoryMb swapMb diskGb hostname ip storage lock".split(" ");

/** What a finding rests on in one line, e.g. `cores 2, memory 768 MB, disk 8 GB, address none`. */
export function describeEvidence(evidence: Readonly<Record<string, unknown>>): string {
  return Object.entries(evidence)
    .toSorted(([one], [other]) => placeOf(one) - placeOf(other))
    .map(([name, value]) => `${nameOf(name)} ${valueOf(name, value)}`)
    .join(", ");
}

function placeOf(name: string): number {
  const place = order.indexOf(name);
  return place === -1 ? order.length : place;
}

function nameOf(name: string): string {
  return words[name] ?? name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

function valueOf(name: string, value: unknown): string {
  if (value === null || value === undefined || value === "") return "none";
  // What differs is told by its member's name.
  if (typeof value === "string") return name === "differs" ? nameOf(value) : value;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return amountOf(name, value);
  // Members of lists are told by the name of the list.
  if (Array.isArray(value)) return value.map((item) => valueOf(name, item)).join(" and ") || "none";
  // What is left of JSON is an object.
  return `(${describeEvidence(value as Readonly<Record<string, unknown>>)})`;
}

function amountOf(name: string, value: number): string {
  if (name.endsWith("Mb")) return formatMb(value);
  return name.endsWith("Gb") ? `${value} GB` : String(value);
}
