/** Who may import whom. A module of the control plane is a folder below control-plane/src. */
export default {
  forbidden: [
    {
      name: "no-cycles",
      comment: "types may refer to each other: they are gone when the program runs",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "not-to-unresolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
    {
      name: "shared-is-pure",
      comment: "shared/ also runs in the browser: no Node modules, no other package of ours",
      severity: "error",
      from: { path: "^shared/", pathNot: "\\.test\\.ts$" },
      to: { path: "^(control-plane|node-agent|proto|test|tools)/|^node:", dependencyTypesNot: ["npm"] },
    },
    {
      name: "agent-and-control-plane-meet-on-the-wire-only",
      severity: "error",
      from: { path: "^node-agent/src", pathNot: "\\.test\\.ts$" },
      to: { path: "^(control-plane|test|tools)/" },
    },
    {
      name: "control-plane-without-agent",
      severity: "error",
      from: { path: "^control-plane/src", pathNot: "\\.test\\.ts$" },
      to: { path: "^(node-agent|test|tools)/" },
    },
    {
      name: "cli-knows-the-api-only",
      comment: "the server's code is loaded by the server's commands when they run",
      severity: "error",
      from: { path: "^control-plane/cli", pathNot: "server-commands\\.ts$|\\.test\\.ts$" },
      to: { path: "^(control-plane/src/(?!version\\.ts$)|node-agent/|proto/|test/|tools/)" },
    },
    {
      name: "server-commands-are-lazy",
      severity: "error",
      from: { path: "^control-plane/cli/commands/server-commands" },
      to: { path: "^control-plane/src", dependencyTypesNot: ["dynamic-import"] },
    },
    {
      name: "server-without-cli",
      severity: "error",
      from: { path: "^control-plane/src", pathNot: "\\.test\\.ts$" },
      to: { path: "^control-plane/cli" },
    },
    {
      name: "platform-is-below-everything",
      severity: "error",
      from: { path: "^control-plane/src/platform", pathNot: "\\.test\\.ts$" },
      to: { path: "^control-plane/src/(?!platform)" },
    },
    {
      name: "edges-are-not-imported",
      comment: "routes, sagas and loops are connected in compose.ts only",
      severity: "error",
      from: { path: "^control-plane/src", pathNot: "(compose[^/]*|main|\\.http)\\.ts$|\\.test\\.ts$" },
      to: { path: "\\.http\\.ts$" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    exclude: { path: "shared/gen|node_modules" },
    parser: "swc",
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "require", "node", "default", "types"],
    },
  },
};
