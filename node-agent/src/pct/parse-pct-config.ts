/** One part of a container's file: its keys, with the description decoded and kept apart. */
export interface ConfigSection {
  /** Lines joined by newlines, without a trailing one. Empty when there is none. */
  readonly description: string;
  readonly options: ReadonlyMap<string, string>;
  /** Raw `lxc.*` lines in their order. */
  readonly raw: readonly (readonly [string, string])[];
}

/** `/etc/pve/nodes/<node>/lxc/<vmid>.conf`. */
export interface ContainerConfig extends ConfigSection {
  /** What the next start will set and remove. */
  readonly pending: {
    readonly options: ReadonlyMap<string, string>;
    readonly deletes: readonly string[];
  };
  /** Names of snapshots. */
  readonly snapshots: readonly string[];
}

interface MutableSection {
  description: string[];
  options: Map<string, string>;
  raw: [string, string][];
}

/**
 * Parses a container's configuration file as Proxmox writes it: description lines ("#", each percent
 * encoded), "key: value" lines, raw lxc lines, then "[pve:pending]" and one section a snapshot.
 * Lines of no known form are passed over, as Proxmox does.
 */
export function parseContainerConfig(text: string): ContainerConfig {
  const main = emptySection();
  const pending = emptySection();
  const snapshots: string[] = [];
  let section = main;
  for (const line of text.split("\n")) {
    const header = /^\[([a-zA-Z0-9:_-]+)\]\s*$/u.exec(line)?.[1];
    if (header !== undefined) {
      section = header === "pve:pending" ? pending : emptySection();
      if (header !== "pve:pending") snapshots.push(header);
    } else {
      addLine(section, line);
    }
  }
  const deletes = splitList(pending.options.get("delete") ?? "");
  pending.options.delete("delete");
  return {
    description: main.description.join("\n"),
    options: main.options,
    raw: main.raw,
    pending: { options: pending.options, deletes },
    snapshots,
  };
}

function emptySection(): MutableSection {
  return { description: [], options: new Map(), raw: [] };
}

function addLine(section: MutableSection, line: string): void {
  if (line.startsWith("#")) {
    section.description.push(decodeText(line.slice(1)));
    return;
  }
  const [, key, value] = /^([a-zA-Z][a-zA-Z0-9_.-]*)\s*[:=]\s*(.*?)\s*$/u.exec(line) ?? [];
  if (key === undefined || value === undefined) return;
  if (key.startsWith("lxc.")) section.raw.push([key, value]);
  else section.options.set(key, value);
}

/** Undoes PVE::Tools::encode_text: "%XX" stands for a byte of UTF-8. */
export function decodeText(text: string): string {
  if (!text.includes("%")) return text;
  const bytes = text
    .split(/(%[0-9A-Fa-f]{2})/u)
    .map((part) => (/^%[0-9A-Fa-f]{2}$/u.test(part) ? Buffer.from(part.slice(1), "hex") : Buffer.from(part)));
  return Buffer.concat(bytes).toString("utf8");
}

/** Splits a list that Proxmox separates by commas, semicolons or white space. */
export function splitList(text: string): string[] {
  return text.split(/[,;\s]+/u).filter((part) => part !== "");
}

/**
 * Parses a property list such as "local:101/vm-101-disk-0.raw,size=8G". A first part without "="
 * is the value of `defaultKey`. The order of the text is kept.
 */
export function parseProperties(text: string, defaultKey: string): Map<string, string> {
  const properties = new Map<string, string>();
  for (const part of text.split(",")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    if (equals === -1) properties.set(defaultKey, part);
    else properties.set(part.slice(0, equals), part.slice(equals + 1));
  }
  return properties;
}

/** The root disk of a configuration. */
export interface RootDisk {
  readonly volumeId: string;
  readonly storage: string;
  /** Undefined when the line does not say (mount points of directories). */
  readonly sizeBytes: number | undefined;
}

/** Parses the value of `rootfs`; undefined when it names no volume of a storage. */
export function parseRootDisk(value: string): RootDisk | undefined {
  const properties = parseProperties(value, "volume");
  const volumeId = properties.get("volume") ?? "";
  const colon = volumeId.indexOf(":");
  if (colon < 1) return undefined;
  return {
    volumeId,
    storage: volumeId.slice(0, colon),
    sizeBytes: parseSize(properties.get("size") ?? ""),
  };
}

const UNIT_BYTES = new Map([
  ["", 1],
  ["K", 2 ** 10],
  ["M", 2 ** 20],
  ["G", 2 ** 30],
  ["T", 2 ** 40],
]);

/** Bytes of a size such as "8G" or "512M"; undefined when it is none. Units are binary. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)([KMGT]?)$/u.exec(text) ?? [];
  const factor = UNIT_BYTES.get(unit ?? "");
  return digits === undefined || factor === undefined ? undefined : Math.round(Number(digits) * factor);
}
