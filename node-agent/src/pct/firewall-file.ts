/** What a guest may send from. */
export interface AddressFilter {
  /** Its address without prefix; undefined when DHCP gives it. */
  readonly address: string | undefined;
}

const BEGIN = "# cloudpods begin (kept by cloudpods-agent: changes of these lines are undone)";
const END = "# cloudpods end";
/** Proxmox takes this set for what eth0 may send from. */
const SET_NAME = "ipfilter-net0";
/** Proxmox drops comment lines when somebody saves the file in its web page; this one it keeps. */
const SET_COMMENT = "cloudpods";

/**
 * A container's `/etc/pve/firewall/<vmid>.fw` with our section as wanted, and without it when
 * `filter` is undefined; everything else stays. Proxmox takes the last of several equal options, so
 * the section is at the end.
 *
 * The guest can send with its own MAC only, and with its own address only where that is known. An
 * address that DHCP gives may change without anybody telling us, and `ipfilter` without a set for
 * it would let nothing out at all: there only the MAC is held. A set that an operator has written
 * for eth0 stands. Inbound traffic is let in unless the operator has said otherwise, for Proxmox drops
 * it as soon as the filter is on. All this takes effect with `firewall=1` on the interface and the
 * firewall of the datacentre on.
 */
export function withAddressFilter(text: string, filter: AddressFilter | undefined): string {
  const kept = withoutOurs(text);
  if (filter === undefined) return kept === "" ? "" : `${kept}\n`;
  const lines = kept.split("\n");
  const isSetTheirs = lines.some((line) => setOf(line)?.name === SET_NAME);
  const hasPolicy = lines.some((line) => /^\s*policy_in\s*:/iu.test(line));
  const isHeld = filter.address !== undefined || isSetTheirs;
  const section = [
    BEGIN,
    "[OPTIONS]",
    "enable: 1",
    "macfilter: 1",
    `ipfilter: ${isHeld ? 1 : 0}`,
    "dhcp: 1",
    ...(hasPolicy ? [] : ["policy_in: ACCEPT"]),
    ...(filter.address === undefined || isSetTheirs ? [] : [`[IPSET ${SET_NAME}] # ${SET_COMMENT}`, filter.address]),
    END,
    "",
  ].join("\n");
  return kept === "" ? section : `${kept}\n\n${section}`;
}

/** Everything but our section and, where that was saved by Proxmox, our set; without blank lines at the end. */
function withoutOurs(text: string): string {
  const kept: string[] = [];
  let within: "theirs" | "section" | "set" = "theirs";
  for (const line of text.split("\n")) {
    if (line === BEGIN) within = "section";
    if (within === "section") {
      if (line === END) within = "theirs";
      continue;
    }
    if (/^\s*\[/u.test(line)) {
      const set = setOf(line);
      within = set?.name === SET_NAME && set.comment === SET_COMMENT ? "set" : "theirs";
    }
    if (within === "theirs") kept.push(line);
  }
  return kept.join("\n").trimEnd();
}

/** The head of a set, "[IPSET name] # comment"; undefined for other lines. */
function setOf(line: string): { readonly name: string; readonly comment: string } | undefined {
  const [, name, comment = ""] = /^\[ipset\s+(\S+?)\s*\]\s*(?:#\s*(.*?)\s*)?$/iu.exec(line) ?? [];
  return name === undefined ? undefined : { name: name.toLowerCase(), comment };
}
