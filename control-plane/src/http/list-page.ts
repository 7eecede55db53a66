import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { isUuid } from "@cloudpods/shared/ids";

/** Query members of every list. Extend it with the list's filters: `listQuery.extend({ status: … })`. */
export const listQuery = z.object({
  limit: z.coerce
    .number()
    .int()
    .min(1)
    .max(200)
    .default(50)
    .openapi({ type: "integer", minimum: 1, maximum: 200, default: 50 }),
  cursor: z.string().max(1_000).optional().openapi({ description: "`nextCursor` of the page before." }),
});

/** Schema of a page of a list. */
export function listOf<Item extends z.ZodType>(item: Item) {
  return z.object({ data: z.array(item), nextCursor: z.string().nullable() });
}

/**
 * The sort key of one row, as strings that PostgreSQL can cast back. The last part is the row's id, which makes it
 * unique; ids sort by time of making, so mostly it is the only part. A timestamp is no part: a Date has lost the
 * microseconds that the rows are sorted by.
 */
export type SortKey = readonly string[];

/** An opaque cursor that names the last row of a page. */
export function encodeCursor(key: SortKey): string {
  return Buffer.from(JSON.stringify(key)).toString("base64url");
}

/**
 * The sort key of a cursor; undefined for the first page.
 * @throws DomainError `invalid` CURSOR_INVALID when it does not have `length` parts with an id at the end.
 */
export function decodeCursor(cursor: string | undefined, length: number): SortKey | undefined {
  if (cursor === undefined) return undefined;
  const parts = parse(cursor);
  if (parts?.length !== length || !isUuid(parts.at(-1) ?? "")) {
    throw new DomainError("invalid", "CURSOR_INVALID", "The cursor is not one that a list of this kind gave out.");
  }
  return parts;
}

function parse(cursor: string): string[] | undefined {
  try {
    const parsed = z.array(z.string()).safeParse(JSON.parse(Buffer.from(cursor, "base64url").toString()));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined; // not JSON
  }
}

/** A page out of `limit + 1` rows: the extra row only tells that there is more. */
export function toPage<Row, Item>(
  rows: readonly Row[],
  limit: number,
  keyOf: (row: Row) => SortKey,
  present: (row: Row) => Item,
): { data: Item[]; nextCursor: string | null } {
  const shown = rows.slice(0, limit);
  const last = shown.at(-1);
  return {
    data: shown.map(present),
    nextCursor: rows.length > limit && last !== undefined ? encodeCursor(keyOf(last)) : null,
  };
}

/** A page of rows that are sorted by their id alone, newest first. */
export function toIdPage<Row extends { readonly id: string }, Item>(
  rows: readonly Row[],
  limit: number,
  present: (row: Row) => Item,
): { data: Item[]; nextCursor: string | null } {
  return toPage(rows, limit, (row) => [row.id], present);
}
