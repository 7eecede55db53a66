import { expect, test } from "vitest";
import { networksOf } from "../security/authenticate.ts";
import { clientAddress } from "./client-address.ts";

const trusted = networksOf(["10.0.0.0/8", "fd00::/8"]);

test.each([
  ["a direct client", "203.0.113.5", undefined, "203.0.113.5"],
  ["a direct client that claims to be another", "203.0.113.5", "192.0.2.1", "203.0.113.5"],
  ["a client behind our proxy", "10.0.0.1", "203.0.113.5", "203.0.113.5"],
  ["a client behind our proxy that claims to be another", "10.0.0.1", "192.0.2.1, 203.0.113.5", "203.0.113.5"],
  ["a client behind two proxies of ours", "10.0.0.1", "203.0.113.5, 10.0.0.2", "203.0.113.5"],
  ["a client on a dual-stack socket", "::ffff:203.0.113.5", undefined, "203.0.113.5"],
  ["a client over IPv6 behind our proxy", "fd00::1", "2001:db8::7", "2001:db8::7"],
  ["our proxy itself", "10.0.0.1", undefined, "10.0.0.1"],
  ["rubbish in the header", "10.0.0.1", "not-an-address", "10.0.0.1"],
  ["no transport", undefined, "203.0.113.5", undefined],
])("address of %s", (_, peer, forwardedFor, expected) => {
  expect(clientAddress(peer, forwardedFor, trusted)).toBe(expected);
});
