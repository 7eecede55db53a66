/** One section of a container's file: plain keys (description decoded) and raw `lxc.*` lines. */
export interface ConfigSection {
  keys: Record<string, string>;
  lxc: [string, string][];
}

/** A container's file: what holds now, what waits for the next start, and its snapshots. */
export interface ContainerConfig extends ConfigSection {
  pending: Record<string, string>;
  /** Keys that the next start removes. */
  pendingDelete: string[];
  snapshots: Map<string, ConfigSection>;
}

/** A configuration without anything in it. */
export function emptyConfig(): ContainerConfig {
  return { keys: {}, lxc: [], pending: {}, pendingDelete: [], snapshots: new Map() };
}

/** Encodes everything but printable ASCII, and `%` and `:`, as `%XX` of its UTF-8 bytes. */
export function encodeText(text: string): string {
  let encoded = "";
  for (const byte of Buffer.from(text, "utf8")) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25 && byte !== 0x3a;
    encoded += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}

/** The inverse of `encodeText`. */
export function decodeText(text: string): string {
  const bytes: Buffer[] = [];
  for (const part of text.split(/(%[0-9A-Fa-f]{2})/u)) {
    const escaped = /^%([0-9A-Fa-f]{2})$/u.exec(part)?.[1];
    bytes.push(escaped === undefined ? Buffer.from(part, "utf8") : Buffer.from(escaped, "hex"));
  }
  return Buffer.concat(bytes).toString("utf8");
}

/** Parses the text of `/etc/pve/nodes/<node>/lxc/<vmid>.conf`; unknown lines are dropped. */
export function parseConfig(text: string): ContainerConfig {
  const config = emptyConfig();
  let section: ConfigSection = config;
  let inPending = false;
  for (const line of text.split("\n")) {
    const header = /^\[([a-z0-9:_-]+)\]\s*$/iu.exec(line)?.[1];
    if (header !== undefined) {
      inPending = header === "pve:pending";
      section = { keys: {}, lxc: [] };
      if (!inPending) config.snapshots.set(header, section);
      continue;
    }
    if (line.startsWith("#")) {
      section.keys["description"] = `${section.keys["description"] ?? ""}${decodeText(line.slice(1))}\n`;
      continue;
    }
    const [, key, value] = /^([a-z0-9_.-]+)\s*[:=]\s*(.*?)\s*$/iu.exec(line) ?? [];
    if (key === undefined || value === undefined) continue;
    if (inPending && key === "delete") config.pendingDelete = splitList(value);
    else if (inPending) config.pending[key] = key === "description" ? decodeText(value) : value;
    else if (key.startsWith("lxc.")) section.lxc.push([key, value]);
    else section.keys[key] = value;
  }
  return config;
}

/** Writes a configuration in the exact form of Proxmox: description, sorted keys, raw lines, sections. */
export function formatConfig(config: ContainerConfig): string {
  let text = formatSection(config);
  if (Object.keys(config.pending).length > 0 || config.pendingDelete.length > 0) {
    text += "\n[pve:pending]\n";
    if (config.pendingDelete.length > 0) text += `delete: ${config.pendingDelete.join(",")}\n`;
    for (const key of Object.keys(config.pending).toSorted()) {
      const value = config.pending[key] ?? "";
      text += `${key}: ${key === "description" ? encodeText(value) : value}\n`;
    }
  }
  for (const name of [...config.snapshots.keys()].toSorted()) {
    const section = config.snapshots.get(name);
    if (section !== undefined) text += `\n[${name}]\n${formatSection(section)}`;
  }
  return text;
}

function formatSection(section: ConfigSection): string {
  let text = "";
  const description = section.keys["description"];
  if (description !== undefined) {
    const lines = description.endsWith("\n") ? description.slice(0, -1) : description;
    for (const line of lines.split("\n")) text += `#${encodeText(line)}\n`;
  }
  for (const key of Object.keys(section.keys).toSorted()) {
    if (key !== "description") text += `${key}: ${section.keys[key] ?? ""}\n`;
  }
  for (const [key, value] of section.lxc) text += `${key}: ${value}\n`;
  return text;
}

/** The digest that `--digest` is compared with: SHA-1 of the file's text. */
export function configDigest(text: string): string {
  // Loaded for the few calls that ask for it: it takes as long as all the rest of a call.
  return process.getBuiltinModule("node:crypto").createHash("sha1").update(text).digest("hex");
}

/** Splits a Proxmox list: separated by commas, semicolons, NULs or white space, empty parts dropped. */
export function splitList(text: string): string[] {
  return text.split(/[,;\0\s]+/u).filter((part) => part !== "");
}
