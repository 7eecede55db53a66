import { expect, test } from "vitest";
import { noPlace } from "./no-place.ts";

const rejected = (node: string, filter: "target" | "memory" | "schedulable", reason: string) => ({
  nodeId: node,
  node,
  filter,
  reason,
});

test("only hosts that come into question are told, and room is what is missing only where it would help", () => {
  const far = { filter: "target", nodes: 24 } as const;
  const cordoned = rejected("pve2", "schedulable", "cordoned: disk");
  expect(
    noPlace({
      rejected: [cordoned, rejected("pve3", "memory", "short of memory by 512 MB"), rejected("pve9", "target", "")],
      reasons: [far, { filter: "schedulable", nodes: 1 }, { filter: "memory", nodes: 1 }],
    }),
  ).toEqual({
    code: "NO_CAPACITY",
    message: "No host that could take it has room (pve2: cordoned: disk; pve3: short of memory by 512 MB).",
  });
  expect(noPlace({ rejected: [cordoned], reasons: [far, { filter: "schedulable", nodes: 3 }] })).toEqual({
    code: "NO_HOST",
    message: "No host could take it (pve2: cordoned: disk; 2 more).",
  });
  expect(noPlace({ rejected: [], reasons: [far] })).toEqual({
    code: "NO_HOST",
    message: "No host could take it (there is none).",
  });
});
