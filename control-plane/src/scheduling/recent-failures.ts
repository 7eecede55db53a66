import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Orders of one size and region that found no place. */
export interface FailedPlacements {
  /** Null: any region would have done. */
  readonly region: string | null;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
  readonly orders: number;
  readonly lastAt: Date;
  /** Why the last of them found none. */
  readonly summary: string;
}

const kindsMax = 100;

/** What was asked for in vain in the last seven days, the most frequent first. */
export async function recentFailures(db: Queryable): Promise<FailedPlacements[]> {
  return await db.query<FailedPlacements>(sql`
    SELECT request->>'region' AS region, (request->>'cores')::integer AS cores, (request->>'memoryMb')::integer AS "memoryMb",
      (request->>'diskGb')::integer AS "diskGb", count(*)::integer AS orders, max(at) AS "lastAt",
      (array_agg(summary ORDER BY at DESC))[1] AS summary
    FROM placement_failures WHERE at > now() - interval '7 days'
    GROUP BY 1, 2, 3, 4 ORDER BY orders DESC, "lastAt" DESC LIMIT ${kindsMax}`);
}
