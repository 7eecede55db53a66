import { randomBytes } from "node:crypto";

/** A new MAC address in the range that Proxmox itself gives out (BC:24:11), upper-case with colons. */
export function newMacAddress(): string {
  const tail = randomBytes(3).toString("hex").toUpperCase();
  return `BC:24:11:${tail.slice(0, 2)}:${tail.slice(2, 4)}:${tail.slice(4, 6)}`;
}
