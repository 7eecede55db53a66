/** Words that the API knows; the tests hold them against the server's own. */
export const nodeRoles = ["hypervisor", "web", "mail", "dns", "cloud", "db", "backup"] as const;

/** What a task does. */
export const taskTypes = [
  "create",
  "resize",
  "start",
  "stop",
  "restart",
  "suspend",
  "resume",
  "destroy",
  "backup",
  "restore",
  "migrate",
  "adopt",
  "set-rate",
] as const;

/** What can be wrong on a host. */
export const findingKinds = [
  "missing",
  "power",
  "resized",
  "drift",
  "lock",
  "orphan",
  "stale-copy",
  "half-created",
  "unmanaged",
  "left-archive",
] as const;
