import type { Database } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import type { Loop } from "../platform/loops.ts";
import { clearLeftArchives } from "./left-archives.ts";
import { clearLeftCopies } from "./left-copies.ts";

/** What tidies up after moves. */
export function moveLoops({ db, hints }: { readonly db: Database; readonly hints: Hints }): Loop[] {
  return [
    {
      name: "clear-left-copies",
      everyMs: 10_000,
      async run() {
        const { asked, released } = await clearLeftCopies(db);
        for (const nodeId of new Set(asked)) hints.send("node_commands", nodeId);
        return asked.length + released === 0 ? undefined : { asked: asked.length, released };
      },
    },
    {
      name: "clear-left-archives",
      everyMs: 60_000,
      async run() {
        const { asked, removed } = await clearLeftArchives(db);
        for (const nodeId of new Set(asked)) hints.send("node_commands", nodeId);
        return asked.length + removed === 0 ? undefined : { asked: asked.length, removed };
      },
    },
  ];
}
