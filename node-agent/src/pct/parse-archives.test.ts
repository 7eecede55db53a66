import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkedText } from "./argument-values.ts";
import {
  halfMadeFiles,
  parseArchiveVolume,
  parseBackupList,
  parseDumpLog,
  parseMigrationLog,
} from "./parse-archives.ts";
import { pctMigrate, pctRestore, pvesmFree, pvesmListBackups, vzdump, zstdTest } from "./pct-arguments.ts";

const volume = "local:backup/vzdump-lxc-102-2026_11_21-00_35_12.tar.zst";

describe("the name of an archive", () => {
  test("tells storage, container, time and compression", () => {
    expect(parseArchiveVolume(volume)).toEqual({
      volumeId: volume,
      storage: "local",
      vmid: 102,
      createdAtMs: new Date(2026, 10, 21, 0, 35, 12).getTime(),
      compression: "zst",
    });
    expect(parseArchiveVolume(volume.replace(".zst", ""))?.compression).toBe("none");
  });

  test("of any other form is none, and what is one may be an argument", () => {
    const part = fc.constantFrom("local", ":", "backup/", "vzdump-lxc-", "102", "-2026_11_21-00_35_12", ".tar", ".zst");
    const text = fc.oneof(
      fc.string(),
      fc.array(fc.oneof(part, fc.string({ maxLength: 3 }))).map((all) => all.join("")),
    );
    fc.assert(
      fc.property(text, (volumeId) => {
        const name = parseArchiveVolume(volumeId);
        if (name === undefined) return;
        expect(checkedText("archive", volumeId)).toBe(volumeId);
        expect(volumeId).not.toContain("..");
      }),
      { examples: [[volume], [`--x=${volume}`], [`${volume}\n`], [volume.replace("backup/", "backup/../")]] },
    );
    for (const odd of ["", `${volume}\n`, volume.replace("lxc", "qemu"), volume.replace("102", "0102"), `/${volume}`]) {
      expect(parseArchiveVolume(odd)).toBeUndefined();
    }
  });
});

test("a list of backups gives volume ids in its order and never throws", () => {
  const listed = [
    "Volid                                                    Format  Type              Size VMID",
    `${volume} tar.zst backup        12345 102`,
    "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst tzst    vztmpl           99 ",
    `${volume.replace("12.tar", "13.tar")} tar.zst backup        12345 102`,
    "pbs:backup/ct/102/2026-11-21T00:35:12Z pbs-ct backup 5 102",
  ].join("\n");
  expect(parseBackupList(listed)).toEqual([volume, volume.replace("12.tar", "13.tar")]);
  fc.assert(fc.property(fc.string(), (text) => void parseBackupList(text)));
});

describe("the log of vzdump", () => {
  const path = "/var/lib/vz/dump/vzdump-lxc-102-2026_11_21-00_35_12.tar.zst";
  const log = (lines: string[]): string => lines.map((line) => `INFO: ${line}\n`).join("");

  test("tells the archive, what ran and why it failed", () => {
    const good = log(["Starting Backup of VM 102 (lxc)", "status = running", `creating vzdump archive '${path}'`]);
    expect(parseDumpLog(good, 102)).toEqual({ archivePath: path, wasRunning: true, failure: undefined });
    expect(halfMadeFiles(path)).toEqual([path.replace(".tar.zst", ".tar.dat"), path.replace(".tar.zst", ".tmp")]);
    const bad = `${log(["status = stopped"])}ERROR: Backup of VM 102 failed - No space left on device\n`;
    expect(parseDumpLog(bad, 102)).toEqual({
      archivePath: undefined,
      wasRunning: false,
      failure: "No space left on device",
    });
  });

  test("names no file but an archive of that container, whatever is in it", () => {
    const hostile = [
      path.replace("-102-", "-103-"),
      "/etc/passwd",
      path.replace("/dump/", "/dump/../../../"),
      `${path}' '/etc/passwd`,
    ];
    for (const other of hostile) {
      expect(parseDumpLog(log([`creating vzdump archive '${other}'`]), 102).archivePath).toBeUndefined();
    }
    fc.assert(
      fc.property(fc.string(), fc.string(), (before, name) => {
        const { archivePath } = parseDumpLog(`${before}\nINFO: creating vzdump archive '${name}'\n`, 102);
        if (archivePath === undefined) return;
        expect(archivePath).toMatch(/^\/.*\/vzdump-lxc-102-[0-9_-]+\.tar(\.zst|\.gz|\.lzo)?$/u);
      }),
    );
  });
});

test("the log of a migration tells whether it ran, how long it was down and the first reason of a failure", () => {
  const at = (second: string, text: string): string => `2026-11-21 00:38:${second} ${text}`;
  const begin = [at("21", "shutdown CT 201"), at("24", "starting migration of CT 201 to node 'pve2' (10.99.0.2)")];
  const end = at("27", "migration finished successfully (duration 00:00:06)");
  expect(parseMigrationLog([...begin, end].join("\n"))).toEqual({
    wasRunning: true,
    isFinished: true,
    downtimeMs: 6_000,
    failure: undefined,
  });
  const broken = [
    ...begin,
    at("25", "ERROR: clone of 'base'"),
    at("26", "ERROR: migration aborted (duration 00:00:01): x"),
  ];
  expect(parseMigrationLog(broken.join("\n"))).toMatchObject({ isFinished: false, failure: "clone of 'base'" });
  expect(parseMigrationLog(end)).toMatchObject({ wasRunning: false, isFinished: true, downtimeMs: 0 });
  fc.assert(fc.property(fc.string(), (text) => void parseMigrationLog(text)));
});

test("whatever a command carries, no word of it becomes an option of these programs", () => {
  const uuid = "0193a5b0-3333-7abc-8def-000000000001";
  const net0 = new Map([["name", "eth0"]]);
  const build = (text: string): (() => { args: readonly string[] })[] => [
    () => vzdump({ vmid: 102, storage: text, mode: "stop", backupId: uuid }),
    () => vzdump({ vmid: 102, storage: "local", mode: text, backupId: uuid }),
    () => vzdump({ vmid: 102, storage: "local", mode: "stop", backupId: text }),
    () => pvesmListBackups(text, 102),
    () => pvesmFree(text),
    () => zstdTest(text),
    () => pctMigrate({ vmid: 102, target: text, targetStorage: "", timeoutSeconds: 60 }),
    () => pctMigrate({ vmid: 102, target: "pve2", targetStorage: text === "" ? "-" : text, timeoutSeconds: 60 }),
    () =>
      pctRestore({
        vmid: 102,
        volumeId: text,
        storage: "local",
        diskGb: 4,
        options: { net0 },
        pool: "",
        overwrite: false,
      }),
  ];
  const words = fc.oneof(fc.string(), fc.constantFrom("--force=1", "-", "--", "a b", "pve2\n", "../x", "/x --y"));
  fc.assert(
    fc.property(words, (text) => {
      for (const make of build(text)) {
        let args: readonly string[] = [];
        try {
          args = make().args;
        } catch (error) {
          expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
          continue;
        }
        for (const word of args) {
          expect(word).not.toMatch(/[\p{Cc}\s]/u);
          // Only options that this agent wrote itself begin with a dash.
          if (word.startsWith("-") && word.includes(text) && text !== "") expect(word).toMatch(/^--[a-z-]+(=|$)/u);
          if (!word.includes("=")) expect(word.startsWith("-") && word === text).toBe(false);
        }
      }
    }),
  );
});
