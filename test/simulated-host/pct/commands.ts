import { isOn } from "../call.ts";
import type { Command } from "../call.ts";
import {
  CONFIG_RULES,
  configId,
  decimal,
  dnsName,
  flag,
  integer,
  nodeName,
  size,
  storageId,
  text,
  vmid,
} from "../option-schema.ts";
import type { OptionRule } from "../option-schema.ts";

const id: [string, OptionRule] = ["vmid", vmid];
const password: OptionRule = {
  type: "string",
  check: (value) => (value.length < 5 ? "value must be at least 5 characters long" : undefined),
};
const CREATE_OPTIONS = {
  ...CONFIG_RULES,
  bwlimit: decimal(0),
  force: flag,
  "ha-managed": flag,
  "ignore-unpack-errors": flag,
  password,
  pool: text,
  restore: flag,
  "ssh-public-keys": text,
  start: flag,
  storage: storageId,
  unique: flag,
};

/** Every subcommand of `pct`; the code of each is loaded when it is called. */
export const PCT_COMMANDS: Record<string, Command> = {
  list: { words: [], options: {}, run: async (call) => (await import("./read.ts")).list(call) },
  status: {
    words: [id],
    options: { verbose: flag },
    run: async (call) => (await import("./read.ts")).status(call),
  },
  config: {
    words: [id],
    options: { current: flag, snapshot: configId },
    run: async (call) => (await import("./read.ts")).config(call),
  },
  pending: {
    words: [id],
    options: {},
    run: async (call) => (await import("./read.ts")).pending(call),
  },
  set: {
    words: [id],
    options: { ...CONFIG_RULES, delete: text, revert: text, digest: text, force: flag },
    run: async (call) => (await import("./set.ts")).set(call),
  },
  create: {
    words: [id, ["ostemplate", text]],
    options: CREATE_OPTIONS,
    run: async (call) =>
      isOn(call, "restore") ? (await import("./restore.ts")).restore(call) : (await import("./create.ts")).create(call),
  },
  restore: {
    words: [id, ["ostemplate", text]],
    options: CREATE_OPTIONS,
    run: async (call) => (await import("./restore.ts")).restore(call),
  },
  clone: {
    words: [id, ["newid", vmid]],
    options: {
      bwlimit: decimal(0),
      description: text,
      full: flag,
      hostname: dnsName,
      pool: text,
      snapname: configId,
      storage: storageId,
      target: nodeName,
    },
    run: async (call) => (await import("./clone.ts")).clone(call),
  },
  start: {
    words: [id],
    options: { debug: flag, skiplock: flag },
    run: async (call) => (await import("./power.ts")).start(call),
  },
  stop: {
    words: [id],
    options: { "overrule-shutdown": flag, skiplock: flag },
    run: async (call) => (await import("./power.ts")).stop(call),
  },
  shutdown: {
    words: [id],
    options: { forcestop: flag, timeout: integer(0) },
    run: async (call) => (await import("./power.ts")).shutdown(call),
  },
  reboot: {
    words: [id],
    options: { timeout: integer(0) },
    run: async (call) => (await import("./power.ts")).reboot(call),
  },
  destroy: {
    words: [id],
    options: { "destroy-unreferenced-disks": flag, force: flag, purge: flag },
    run: async (call) => (await import("./destroy.ts")).destroy(call),
  },
  snapshot: {
    words: [id, ["snapname", configId]],
    options: { description: text },
    run: async (call) => (await import("./snapshots.ts")).snapshot(call),
  },
  rollback: {
    words: [id, ["snapname", configId]],
    options: { start: flag },
    run: async (call) => (await import("./snapshots.ts")).rollback(call),
  },
  delsnapshot: {
    words: [id, ["snapname", configId]],
    options: { force: flag },
    run: async (call) => (await import("./snapshots.ts")).delsnapshot(call),
  },
  listsnapshot: {
    words: [id],
    options: {},
    run: async (call) => (await import("./snapshots.ts")).listsnapshot(call),
  },
  exec: {
    words: [id],
    options: { "keep-env": flag },
    takesExtra: true,
    run: async (call) => (await import("./guest.ts")).exec(call),
  },
  push: {
    words: [id, ["file", text], ["destination", text]],
    options: { group: text, perms: text, user: text },
    run: async (call) => (await import("./guest.ts")).push(call),
  },
  pull: {
    words: [id, ["path", text], ["destination", text]],
    options: { group: text, perms: text, user: text },
    run: async (call) => (await import("./guest.ts")).pull(call),
  },
  resize: {
    words: [id, ["disk", text], ["size", size]],
    options: { digest: text },
    run: async (call) => (await import("./disks.ts")).resize(call),
  },
  template: {
    words: [id],
    options: {},
    run: async (call) => (await import("./disks.ts")).template(call),
  },
  "move-volume": {
    words: [id, ["volume", text], ["storage", storageId]],
    options: { bwlimit: decimal(0), delete: flag, digest: text },
    run: async (call) => (await import("./disks.ts")).moveVolume(call),
  },
  rescan: {
    words: [],
    options: { dryrun: flag, vmid },
    run: async (call) => (await import("./disks.ts")).rescan(call),
  },
  migrate: {
    words: [id, ["target", nodeName]],
    options: {
      bwlimit: decimal(0),
      restart: flag,
      "target-storage": text,
      timeout: integer(0),
    },
    run: async (call) => (await import("./migrate.ts")).migrate(call),
  },
  unlock: {
    words: [id],
    options: {},
    run: async (call) => (await import("./upkeep.ts")).unlock(call),
  },
  df: { words: [id], options: {}, run: async (call) => (await import("./upkeep.ts")).df(call) },
  mount: {
    words: [id],
    options: {},
    run: async (call) => (await import("./upkeep.ts")).mount(call),
  },
  unmount: {
    words: [id],
    options: {},
    run: async (call) => (await import("./upkeep.ts")).unmount(call),
  },
  fstrim: {
    words: [id],
    options: { "ignore-mountpoints": flag },
    run: async (call) => (await import("./upkeep.ts")).fstrim(call),
  },
};
