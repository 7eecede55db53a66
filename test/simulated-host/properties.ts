import { hashOf } from "./hash.ts";

/** A property string such as `name=eth0,bridge=vmbr0`, in the order it was written. */
type Properties = Map<string, string>;

/** Parses a property string; a first part without `=` is stored under `defaultKey`. */
export function parseProperties(text: string, defaultKey: string): Properties {
  const properties: Properties = new Map();
  for (const part of text.split(",")) {
    if (part === "") continue;
    const separator = part.indexOf("=");
    if (separator === -1) properties.set(defaultKey, part);
    else properties.set(part.slice(0, separator), part.slice(separator + 1));
  }
  return properties;
}

/** Prints a net property string as Proxmox writes it back: the name, then the rest by alphabet. */
export function printNet(net: Properties): string {
  const rest = [...net.keys()].filter((key) => key !== "name").toSorted();
  return ["name", ...rest].map((key) => `${key}=${net.get(key) ?? ""}`).join(",");
}

/** Prints a mount point: the volume, then the other keys by alphabet. */
export function printMountPoint(mountPoint: Properties): string {
  const rest = [...mountPoint.keys()].filter((key) => key !== "volume").toSorted();
  const parts = rest.map((key) => `${key}=${mountPoint.get(key) ?? ""}`);
  return [mountPoint.get("volume") ?? "", ...parts].join(",");
}

/** A new MAC address with the vendor prefix that Proxmox uses. */
export function randomMac(): string {
  const tail = Array.from({ length: 3 }, () => Math.floor(Math.random() * 256));
  return `BC:24:11:${tail.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(":")}`;
}

/** The address that the simulated network's DHCP server always gives to a MAC address: 10.x.y.z. */
export function dhcpAddress(mac: string): string {
  const hash = Number(hashOf(mac.toUpperCase()) & 0xffffffn);
  return `10.${1 + ((hash >> 16) % 254)}.${(hash >> 8) & 255}.${2 + ((hash & 255) % 252)}`;
}

const UNIT_POWERS: Record<string, number> = { "": 0, K: 1, M: 2, G: 3, T: 4 };

/** Bytes of a size such as `8G` or `1.5T`; without a unit the number is bytes. NaN when malformed. */
export function parseSize(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)([KMGT])?$/u.exec(text) ?? [];
  if (number === undefined) return Number.NaN;
  return Math.round(Number(number) * 1024 ** (UNIT_POWERS[unit] ?? 0));
}

/** Prints bytes with the largest binary unit that divides them, as `size=` in a configuration. */
export function printSize(bytes: number): string {
  let value = bytes;
  let printed = `${bytes}`;
  for (const unit of ["K", "M", "G", "T"]) {
    if (value % 1024 !== 0 || value === 0) return printed;
    value /= 1024;
    printed = `${value}${unit}`;
  }
  return printed;
}
