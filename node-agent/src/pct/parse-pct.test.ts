import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { anyText } from "../../../test/support/any-text.ts";
import { parseMembers, parseStorageConfig, parseVmList } from "./parse-pct-cluster.ts";
import { parseContainerConfig, parseProperties, parseRootDisk, parseSize } from "./parse-pct-config.ts";
import { parseInterfaceAddress, parsePveVersion, parseStorageStatus } from "./parse-pct-output.ts";
import { parseRunningTasks, parseUpid } from "./parse-pct-tasks.ts";
import { parseProcessStart } from "./process-start.ts";
import { parseRunningVmids } from "./read-kernel.ts";
import { holdsLock } from "./read-tasks.ts";
import type { LiveTask } from "./read-tasks.ts";

/** Encodes as PVE::Tools::encode_text does. */
function encode(text: string): string {
  return [...Buffer.from(text)]
    .map((byte) =>
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25 && byte !== 0x3a
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`,
    )
    .join("");
}

const KEY = fc.stringMatching(/^[a-z][a-z0-9_]{1,12}$/u).filter((key) => !["delete", "description"].includes(key));
const VALUE = fc.stringMatching(/^[!-~]([ -~]{0,30}[!-~])?$/u);

describe("a container's configuration file", () => {
  it("is read as it was written: description, keys, raw lines, pending and snapshots", () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 80 }).filter((text) => !text.endsWith("\n") && !text.includes("\r")),
        fc.dictionary(KEY, VALUE, { maxKeys: 6 }),
        fc.dictionary(KEY, VALUE, { maxKeys: 3 }),
        fc.uniqueArray(KEY, { maxLength: 2 }),
        fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9_-]{1,10}$/u), { maxLength: 2 }),
        (description, options, pending, deletes, snapshots) => {
          const lines = (entries: Record<string, string>): string =>
            Object.entries(entries)
              .map(([key, value]) => `${key}: ${value}\n`)
              .join("");
          const text = [
            description === ""
              ? ""
              : description
                  .split("\n")
                  .map((line) => `#${encode(line)}\n`)
                  .join(""),
            lines(options),
            "lxc.cgroup2.io.max: 254:5 wbps=1\n",
            "\n[pve:pending]\n",
            lines(pending),
            deletes.length === 0 ? "" : `delete: ${deletes.join(",")}\n`,
            ...snapshots.map((name) => `\n[${name}]\n#old\nmemory: 1\nsnaptime: 1\n`),
          ].join("");
          const config = parseContainerConfig(text);
          expect(config.description).toBe(description);
          expect(Object.fromEntries(config.options)).toEqual(options);
          expect(config.raw).toEqual([["lxc.cgroup2.io.max", "254:5 wbps=1"]]);
          expect(Object.fromEntries(config.pending.options)).toEqual(pending);
          expect(config.pending.deletes).toEqual(deletes);
          expect(config.snapshots).toEqual(snapshots);
        },
      ),
    );
  });

  it("whatever a snapshot holds, it changes nothing of the present", () => {
    const config = parseContainerConfig("memory: 512\n\n[s1]\nmemory: 128\nlock: backup\n#cloudpods\n");
    expect(Object.fromEntries(config.options)).toEqual({ memory: "512" });
    expect(config.description).toBe("");
  });

  it("never throws", () => {
    // A line that begins as one of the file does gets further than any text.
    const beginning = fc.constantFrom(
      "",
      "#",
      "[",
      "[pve:pending]\n",
      "rootfs: ",
      "net0: ",
      "lxc.",
      "memory: ",
      "mp0: a,",
    );
    const file = fc.array(
      fc.tuple(beginning, anyText({ maxLength: 20 })).map((parts) => parts.join("")),
      { maxLength: 5 },
    );
    fc.assert(fc.property(file, (lines) => void parseContainerConfig(lines.join("\n"))));
  });

  it.each([
    ["8G", 8 * 2 ** 30],
    ["512M", 512 * 2 ** 20],
    ["1.5T", 1.5 * 2 ** 40],
    ["1024", 1024],
    ["", undefined],
    ["8 G", undefined],
    ["-1G", undefined],
  ])("size %s", (text, bytes) => expect(parseSize(text)).toBe(bytes));

  it("the root disk", () => {
    expect(parseRootDisk("local:101/vm-101-disk-0.raw,size=8G")).toEqual({
      volumeId: "local:101/vm-101-disk-0.raw",
      storage: "local",
      sizeBytes: 8 * 2 ** 30,
    });
    expect(parseRootDisk("/mnt/x,size=8G")).toBeUndefined();
    expect(parseProperties("nesting=1,fuse=1", "x").get("fuse")).toBe("1");
  });
});

describe("the cluster's files", () => {
  it(".members of a lone host and of a cluster", () => {
    expect(parseMembers('{"nodename":"pve1","version":3}')).toEqual({
      nodeName: "pve1",
      clusterName: "",
      quorate: true,
      online: new Map(),
    });
    const nodes = '{"pve1":{"id":1,"online":1},"pve2":{"id":2,"online":0},"pve3":{"id":3}}';
    const cluster = `{"nodename":"pve1","version":4,"cluster":{"name":"c","nodes":3,"quorate":0},"nodelist":${nodes}}`;
    expect(parseMembers(cluster)).toEqual({
      nodeName: "pve1",
      clusterName: "c",
      quorate: false,
      online: new Map([
        ["pve1", true],
        ["pve2", false],
        ["pve3", false],
      ]),
    });
  });

  it("half a file is unknown, never empty", () => {
    const text = '{"nodename":"pve1","version":4,"cluster":{"name":"c","quorate":1}}';
    for (let length = 0; length < text.length; length += 1) {
      expect(parseMembers(text.slice(0, length))).toBeUndefined();
    }
    expect(parseVmList('{"version":1,"ids":{"100":')).toBeUndefined();
    expect(parseVmList("{}")).toBeUndefined();
  });

  it(".vmlist", () => {
    const owners = parseVmList(
      '{"version":9,"ids":{"200":{"node":"pve2","type":"lxc","version":12},"201":{"node":"pve1","type":"qemu","version":1}}}',
    );
    expect(owners).toEqual(
      new Map([
        [200, { node: "pve2", type: "lxc" }],
        [201, { node: "pve1", type: "qemu" }],
      ]),
    );
  });

  it("storage.cfg", () => {
    const text = [
      "dir: local",
      "\tpath /var/lib/vz",
      "\tcontent vztmpl,backup",
      "",
      "lvmthin: lt",
      "\tthinpool data",
      "\tvgname pve",
      "\tcontent rootdir,images",
      "\tnodes pve1,pve2",
      "",
      "nfs: bt",
      "\tserver 10.0.0.1",
      "\texport /x",
      "\tcontent backup",
      "\tdisable",
      "",
    ].join("\n");
    expect(parseStorageConfig(text)).toEqual([
      {
        id: "local",
        type: "dir",
        content: ["vztmpl", "backup"],
        shared: false,
        disabled: false,
        nodes: [],
        path: "/var/lib/vz",
        backend: "",
      },
      {
        id: "lt",
        type: "lvmthin",
        content: ["rootdir", "images"],
        shared: false,
        disabled: false,
        nodes: ["pve1", "pve2"],
        path: undefined,
        backend: "",
      },
      {
        id: "bt",
        type: "nfs",
        content: ["backup"],
        shared: true,
        disabled: true,
        nodes: [],
        path: "/mnt/pve/bt",
        backend: "nfs:10.0.0.1:/x",
      },
    ]);
  });
});

describe("tasks", () => {
  const UPID = "UPID:pve1:0000023D:0006E8E8:6B00F032:vzstop:100:root@pam:";

  it("a UPID and the list of running ones", () => {
    expect(parseUpid(UPID)).toEqual({
      node: "pve1",
      pid: 0x23d,
      processStart: 0x6e8e8n,
      startedAtSeconds: 0x6b00f032,
      type: "vzstop",
      id: "100",
    });
    const active = `${UPID} 0\n${UPID.replace("vzstop", "vzclone")} 1 6B00F040 OK\nrubbish\n`;
    expect(parseRunningTasks(active).map(({ type }) => type)).toEqual(["vzstop"]);
  });

  const task = (change: Partial<LiveTask>): LiveTask => ({
    node: "pve1",
    pid: 1,
    processStart: 1n,
    startedAtSeconds: 1,
    type: "vzstart",
    id: "100",
    cloneTarget: undefined,
    ...change,
  });

  it.each([
    ["its own task", [task({})], "disk", true],
    ["another container's", [task({ id: "101" })], "disk", false],
    ["a backup of many", [task({ type: "vzdump", id: "" })], "backup", true],
    ["a backup of another", [task({ type: "vzdump", id: "101" })], "backup", false],
    ["a clone whose target is not known yet", [task({ type: "vzclone", id: "9000" })], "create", true],
    ["a clone to another", [task({ type: "vzclone", id: "9000", cloneTarget: 101 })], "create", false],
    ["a clone to this one", [task({ type: "vzclone", id: "9000", cloneTarget: 100 })], "create", true],
    ["nobody", [], "create", false],
  ])("the lock may be held by %s", (_, tasks, lock, held) => expect(holdsLock(tasks, 100, lock)).toBe(held));

  it("a process that nobody reaped has ended", () => {
    const stat = (state: string): string => `7 (a) b) ${state} ${Array.from({ length: 30 }, (_, i) => i).join(" ")}`;
    expect(parseProcessStart(stat("S"))).toBe(18n);
    expect(parseProcessStart(stat("Z"))).toBeUndefined();
    expect(parseProcessStart("")).toBeUndefined();
  });
});

describe("outputs", () => {
  it("pvesm status", () => {
    const text = [
      "Name             Type     Status           Total            Used       Available        %",
      "bt                nfs   inactive               0               0               0    0.00%",
      "local             dir     active       102400000        51200000        51200000   50.00%",
      "old               dir   disabled             N/A             N/A             N/A      N/A",
    ].join("\n");
    expect(parseStorageStatus(text)).toEqual([
      { storage: "bt", available: false, totalKib: 0n, usedKib: 0n },
      { storage: "local", available: true, totalKib: 102400000n, usedKib: 51200000n },
      { storage: "old", available: false, totalKib: 0n, usedKib: 0n },
    ]);
  });

  it("an interface's address", () => {
    const line = "2: eth0    inet 10.1.2.3/24 brd 10.1.2.255 scope global dynamic eth0\\       valid_lft 3599sec";
    expect(parseInterfaceAddress(line)).toBe("10.1.2.3");
    expect(parseInterfaceAddress("2: eth0    inet 169.254.1.1/16 scope link eth0\\")).toBeUndefined();
    expect(parseInterfaceAddress("")).toBeUndefined();
  });

  it("the version, and the running containers", () => {
    expect(parsePveVersion("pve-manager/9.2.11/8f3b2c1d (running kernel: 6.17.2-1-pve)\n")).toBe("9.2.11");
    expect(parsePveVersion("")).toBeUndefined();
    const unix =
      "0: 2 0 10000 1 1 99 @/var/lib/lxc/100/command\n0: 2 0 10000 1 1 98 @/var/lib/lxc/7/command\n0: 2 0 10000 1 1 98 @/var/lib/lxc/101/command.x\n";
    expect([...parseRunningVmids(unix)]).toEqual([100]);
  });
});
