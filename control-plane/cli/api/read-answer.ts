import type { z } from "zod";

/** Null is good news here, which nobody may be told because something is missing: every server has them. */
const decisive: ReadonlySet<PropertyKey> = new Set(["blocker", "fault", "nextCursor"]);

/**
 * Reads the JSON of an answer. A server that is older than this program leaves out what was added since: what may be null
 * is null then, so that all else can be shown. What may not, or decides, has to be there.
 */
export function readAnswer<Schema extends z.ZodType>(
  schema: Schema,
  text: string,
): z.ZodSafeParseResult<z.output<Schema>> {
  const answer: unknown = text === "" ? undefined : JSON.parse(text);
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed;
  for (const { path } of parsed.error.issues) addNull(answer, path);
  return schema.safeParse(answer);
}

/** Where there is nothing at all. */
function addNull(answer: unknown, path: readonly PropertyKey[]): void {
  const name = path.at(-1);
  const holder = path
    .slice(0, -1)
    .reduce((inside, key) => (isObject(inside) ? Reflect.get(inside, key) : undefined), answer);
  if (name === undefined || decisive.has(name)) return;
  if (isObject(holder) && !Reflect.has(holder, name)) Reflect.set(holder, name, null);
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}
