import { BlockList, isIPv4, isIPv6 } from "node:net";

// IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890): everything that is not globally reachable.
const specialIpv4 = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/4",
  "240.0.0.0/4",
];
// Of the global unicast block: protocol assignments with Teredo, documentation, 6to4 (which carries an IPv4 address).
const specialIpv6 = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

const reserved = blockList(specialIpv4, "ipv4");
const reservedIpv6 = blockList(specialIpv6, "ipv6");
const globalUnicast = blockList(["2000::/3"], "ipv6");

/**
 * Whether an address belongs to the public internet, so that a request to it cannot reach machines of ours. Of IPv6
 * only global unicast counts: addresses that map or translate IPv4, link-local and unique local ones do not.
 */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !reserved.check(address, "ipv4");
  if (!isIPv6(address) || address.includes("%")) return false;
  return globalUnicast.check(address, "ipv6") && !reservedIpv6.check(address, "ipv6");
}

function blockList(networks: readonly string[], family: "ipv4" | "ipv6"): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = "", prefix] = network.split("/");
    list.addSubnet(address, Number(prefix), family);
  }
  return list;
}
