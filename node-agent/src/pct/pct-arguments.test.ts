import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { anyText } from "../../../test/support/any-text.ts";
import { codeOf } from "../agent-error.ts";
import { readableCommandLine } from "./command-line.ts";
import {
  formatNetwork,
  pctClone,
  pctCreate,
  pctExec,
  pctPush,
  pctSet,
  pctShutdown,
  umountRecursively,
} from "./pct-arguments.ts";
import { parseProperties } from "./parse-pct-config.ts";

const HOSTILE = fc.oneof(
  anyText({ maxLength: 40 }),
  fc.constantFrom(
    "",
    "-x",
    "--storage=other",
    "a --force",
    "a\nlxc.hook.start: /bin/sh",
    "a\u0000b",
    "a;b",
    "$(id)",
    "../../etc/passwd",
    "a,hwaddr=00:00:00:00:00:01",
    "local:../../x",
    "ü",
  ),
);

/** The words that a builder makes, or undefined when it refuses. */
function words(build: () => { readonly args: readonly string[] }): readonly string[] | undefined {
  try {
    return build().args;
  } catch (error) {
    expect(codeOf(error)).toBe("INVALID_ARGUMENT");
    return undefined;
  }
}

function withoutControl(word: string): boolean {
  return !/[^\P{Cc}\n]/u.test(word);
}

describe("arguments of the Proxmox programs", () => {
  it("hostile text never becomes an option, a position or a second line", () => {
    fc.assert(
      fc.property(HOSTILE, fc.constantFrom("hostname", "storage", "pool", "volume", "keys"), (text, field) => {
        const args = words(() =>
          pctCreate({
            vmid: 100,
            volumeId: field === "volume" ? text : "local:vztmpl/debian.tar.zst",
            storage: field === "storage" ? text : "local",
            diskGb: 4,
            options: { hostname: field === "hostname" ? text : "pod", tags: ["cloudpods"] },
            pool: field === "pool" ? text : "",
            keysFile: field === "keys" ? text : undefined,
          }),
        );
        if (args === undefined) return;
        const positions = args.filter((word) => !word.startsWith("--"));
        expect(positions).toHaveLength(3);
        const names = args.flatMap((word) => /^--([a-z-]+)=/u.exec(word)?.[1] ?? []);
        expect(new Set(names).size).toBe(names.length);
        for (const name of names) {
          expect(["rootfs", "unprivileged", "hostname", "tags", "pool", "ssh-public-keys"]).toContain(name);
        }
        for (const word of args) expect(/\p{Cc}/u.test(word)).toBe(false);
      }),
    );
  });

  it("a description is one word whatever it holds, and control characters are refused", () => {
    fc.assert(
      fc.property(HOSTILE, (text) => {
        const args = words(() => pctSet(100, { options: { description: text } }));
        if (args === undefined) {
          expect(withoutControl(text)).toBe(false);
          return;
        }
        expect(args).toEqual(["set", "100", `--description=${text}`]);
        expect(withoutControl(text)).toBe(true);
      }),
    );
  });

  it("a network is read back as it was given, and no value adds a property", () => {
    fc.assert(
      fc.property(HOSTILE, HOSTILE, (bridge, extra) => {
        const network = new Map([
          ["bridge", bridge],
          ["name", "eth0"],
          ["mtu", extra],
        ]);
        const text = words(() => ({ args: [formatNetwork(network)] }))?.[0];
        if (text === undefined) return;
        expect(parseProperties(text, "name")).toEqual(network);
        expect(text.startsWith("name=eth0,")).toBe(true);
      }),
    );
  });

  it("a command in a container begins behind the separator", () => {
    fc.assert(
      fc.property(fc.array(HOSTILE, { minLength: 1, maxLength: 4 }), (command) => {
        const args = words(() => pctExec(100, command));
        if (args === undefined) return;
        expect(args.slice(0, 4)).toEqual(["exec", "100", "--keep-env=0", "--"]);
        expect(args.slice(4)).toEqual(command);
      }),
    );
  });

  it.each([0, 99, 1_000_000_000, 1.5, Number.NaN, -100])("refuses the VMID %s", (vmid) => {
    expect(() => pctShutdown(vmid, 60)).toThrow("vmid is not acceptable");
  });

  it("paths stay below where they say", () => {
    expect(() => umountRecursively("/var/lib/lxc/../../etc")).toThrow("path is not acceptable");
    expect(() => pctPush(100, "relative", "/root/x")).toThrow("path is not acceptable");
  });

  it("a linked clone names no storage and carries name and marker in one call", () => {
    const clone = { templateVmid: 9000, vmid: 100, hostname: "a", description: "d", storage: "lvm", pool: "p" };
    expect(pctClone({ ...clone, full: false }).args).toEqual([
      "clone",
      "9000",
      "100",
      "--hostname=a",
      "--description=d",
      "--full=0",
      "--pool=p",
    ]);
    expect(pctClone({ ...clone, full: true }).args).toContain("--storage=lvm");
  });

  it("a readable line keeps words apart", () => {
    expect(readableCommandLine(["pct", "set", "100", "--description=a b'c\nd"])).toBe(
      String.raw`pct set 100 '--description=a b'\''c\nd'`,
    );
  });
});
