import type { Logger } from "pino";
import type { Database } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import type { Loop } from "../platform/loops.ts";
import { clearLeftArchives } from "./left-archives.ts";
import { clearLeftCopies } from "./left-copies.ts";

/** What tidies up after moves. */
export function moveLoops({
  db,
  log,
  hints,
}: {
  readonly db: Database;
  readonly log: Logger;
  readonly hints: Hints;
}): Loop[] {
  return [
    {
      name: "clear-left-copies",
      everyMs: 10_000,
      async run() {
        const { asked, released } = await clearLeftCopies({ db, log });
        for (const nodeId of new Set(asked)) hints.send("node_commands", nodeId);
        return asked.length + released === 0 ? undefined : { asked: asked.length, released };
      },
    },
    {
      name: "clear-left-archives",
      everyMs: 60_000,
      async run() {
        const { asked, removed, givenUp } = await clearLeftArchives({ db, log });
        for (const nodeId of new Set(asked)) hints.send("node_commands", nodeId);
        return asked.length + removed + givenUp === 0 ? undefined : { asked: asked.length, removed, givenUp };
      },
    },
  ];
}
