import { sql, type Sql } from "../platform/sql.ts";

const firstMs = 60_000;
const mostMs = 6 * 3_600_000;

/** How long to leave alone what was tried so often before: a minute, twice as long after each try, six hours at most. */
export function pauseAfter(tries: Sql): Sql {
  return sql`(least(${mostMs}, ${firstMs} * 2 ^ least(${tries}, 20)) * interval '1 ms')`;
}
