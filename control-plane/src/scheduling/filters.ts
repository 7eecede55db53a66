/** Names of the filters, in the order in which they are asked. */
export const filterNames = [
  "online",
  "schedulable",
  "region",
  "role",
  "capability",
  "template",
  "storage",
  "labels",
  "anti-affinity",
  "cpu",
  "memory",
  "disk",
  "quorum",
] as const;
export type FilterName = (typeof filterNames)[number];
