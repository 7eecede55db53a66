/** What a task does. `CREATE_CONTAINER` is accepted as a filter alias of `create`. */
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
export type TaskType = (typeof taskTypes)[number];
