import fc from "fast-check";
import { expect, test } from "vitest";
import { type AddressFilter, withAddressFilter } from "./firewall-file.ts";

/** What Proxmox makes of a file: the last of equal options counts, a set is what its last head begins. */
function parsed(text: string): {
  readonly options: Map<string, string>;
  readonly sets: Map<string, string[]>;
  readonly rules: string[];
} {
  const [options, sets, rules] = [new Map<string, string>(), new Map<string, string[]>(), [] as string[]];
  let put: (line: string) => void = () => undefined;
  for (const line of text.split("\n")) {
    if (/^\s*$|^#/u.test(line)) continue;
    const [, set] = /^\[ipset\s+(\S+)\]/iu.exec(line) ?? [];
    if (/^\[options\]/iu.test(line)) {
      put = (entry) => {
        const [key = "", value = ""] = entry.split(/\s*:\s*/u);
        options.set(key, value);
      };
    } else if (set !== undefined) {
      const members: string[] = [];
      sets.set(set, members);
      put = (entry) => void members.push(entry);
    } else if (/^\[rules\]/iu.test(line)) put = (entry) => void rules.push(entry);
    else put(line);
  }
  return { options, sets, rules };
}

/** What the web page of Proxmox saves: its own order, and no comment lines. */
function saved(text: string): string {
  const { options, sets, rules } = parsed(text);
  const comments = new Map(
    [...text.matchAll(/^\[IPSET (\S+)\] # (.*)$/gmu)].map(([, name, comment]) => [name, comment]),
  );
  return [
    "[OPTIONS]",
    ...[...options].map(([key, value]) => `${key}: ${value}`),
    ...[...sets].flatMap(([name, members]) => {
      const comment = comments.get(name);
      return ["", `[IPSET ${name}]${comment === undefined ? "" : ` # ${comment}`}`, ...members];
    }),
    "",
    "[RULES]",
    ...rules,
    "",
  ].join("\n");
}

const theirOptions = fc.constantFrom("log_level_in: info", "policy_out: DROP", "enable: 0", "ndp: 0", "ipfilter: 1");
const theirSections = fc.oneof(
  fc.array(theirOptions, { maxLength: 3 }).map((lines) => ["[OPTIONS]", ...lines]),
  fc.constant(["[RULES]", "IN SSH(ACCEPT) -i net0 # from the office", "|OUT DROP -p tcp -dport 25"]),
  fc.constant(["[IPSET office] # people", "192.0.2.0/24", "!192.0.2.7"]),
  fc.constant(["[ALIASES]", "gate 192.0.2.1"]),
  fc.constant(["# a remark", ""]),
);
const theirs = fc.array(theirSections, { maxLength: 5 }).map((sections) => sections.flat().join("\n").trimEnd());
const filter = fc.oneof(
  fc.constant<AddressFilter>({ address: undefined }),
  fc.constantFrom("10.0.0.5", "198.51.100.20").map((address): AddressFilter => ({ address })),
);

test("what is in force is ours, and the operator's lines are all there, in their order", () => {
  fc.assert(
    fc.property(theirs, filter, (before, wanted) => {
      const after = withAddressFilter(before, wanted);
      const [was, is] = [parsed(before), parsed(after)];
      const ours = { enable: "1", macfilter: "1", dhcp: "1", policy_in: "ACCEPT" };
      const ipfilter = wanted.address === undefined ? "0" : "1";
      expect(Object.fromEntries(is.options)).toEqual({ ...Object.fromEntries(was.options), ...ours, ipfilter });
      expect(is.sets.get("ipfilter-net0")).toEqual(wanted.address === undefined ? undefined : [wanted.address]);
      expect(is.rules).toEqual(was.rules);
      expect(after.startsWith(before)).toBe(true);
    }),
  );
});

test("written again it stays the same, changed it forgets what it was, and taken away it leaves the rest", () => {
  fc.assert(
    fc.property(theirs, filter, filter, (before, first, second) => {
      const once = withAddressFilter(before, first);
      expect(withAddressFilter(once, first)).toBe(once);
      expect(withAddressFilter(once, second)).toBe(withAddressFilter(before, second));
      expect(withAddressFilter(once, undefined)).toBe(before === "" ? "" : `${before}\n`);
    }),
  );
});

test("a file that Proxmox saved anew is set right again, whatever was in force before", () => {
  fc.assert(
    fc.property(theirs, filter, filter, (before, first, second) => {
      const again = parsed(withAddressFilter(saved(withAddressFilter(before, first)), second));
      const direct = parsed(withAddressFilter(before, second));
      expect(Object.fromEntries(again.options)).toEqual(Object.fromEntries(direct.options));
      expect(again.sets).toEqual(direct.sets);
      expect(again.rules).toEqual(direct.rules);
    }),
  );
});

test("an operator's own set for eth0 and policy stand", () => {
  const before = "[OPTIONS]\npolicy_in: DROP\n\n[IPSET ipfilter-net0]\n10.0.0.5\n10.0.0.6\n";
  const { options, sets } = parsed(withAddressFilter(before, { address: "10.0.0.5" }));
  expect(sets.get("ipfilter-net0")).toEqual(["10.0.0.5", "10.0.0.6"]);
  expect(Object.fromEntries(options)).toMatchObject({ policy_in: "DROP", ipfilter: "1", enable: "1" });
});

test("the exact words", () => {
  expect(withAddressFilter("", { address: "10.0.0.5" })).toBe(
    [
      "# cloudpods begin (kept by cloudpods-agent: changes of these lines are undone)",
      "[OPTIONS]",
      "enable: 1",
      "macfilter: 1",
      "ipfilter: 1",
      "dhcp: 1",
      "policy_in: ACCEPT",
      "[IPSET ipfilter-net0] # cloudpods",
      "10.0.0.5",
      "# cloudpods end",
      "",
    ].join("\n"),
  );
});
