#!/usr/bin/env node
// Written so that any Node.js reads it: an older one is to say what is missing instead of failing somewhere inside.
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 24 || (major === 24 && minor < 7)) {
  process.stderr.write(`cloudpods: Node.js 24.7 or newer is needed; ${process.execPath} is ${process.versions.node}\n`);
  process.exit(1);
}
await import("../cli/main.ts");
