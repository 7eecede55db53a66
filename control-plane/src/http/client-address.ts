import { isIP, isIPv4, isIPv6, type BlockList } from "node:net";

/**
 * Address of the client: the peer of the connection, or, when that is a proxy of ours, the nearest address
 * in X-Forwarded-For that is not. What a client itself writes into the header is thereby never believed.
 */
export function clientAddress(
  peer: string | undefined,
  forwardedFor: string | undefined,
  trusted: BlockList,
): string | undefined {
  if (peer === undefined) return undefined;
  const hops = [...(forwardedFor ?? "").split(","), peer].map((hop) => plainAddress(hop.trim())).toReversed();
  for (const [index, hop] of hops.entries()) {
    if (isIP(hop) === 0) return hops[index - 1];
    if (!isTrusted(hop, trusted)) return hop;
  }
  return hops.at(-1);
}

function isTrusted(address: string, trusted: BlockList): boolean {
  return trusted.check(address, isIPv4(address) ? "ipv4" : "ipv6");
}

/** IPv4 addresses that a dual-stack socket shows as IPv6 are written as IPv4. */
function plainAddress(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  return isIPv6(address) && mapped?.[1] !== undefined ? mapped[1] : address;
}
