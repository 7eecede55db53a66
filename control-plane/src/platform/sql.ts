/** A statement with its parameters apart; the only way statements are made from values. */
export interface Sql {
  readonly text: string;
  readonly values: readonly unknown[];
  /** Given by `prepared`. */
  readonly isPrepared?: true;
}

class Fragment implements Sql {
  readonly strings: readonly string[];
  readonly parts: readonly unknown[];

  constructor(strings: readonly string[], parts: readonly unknown[]) {
    this.strings = strings;
    this.parts = parts;
  }

  private rendered: { readonly text: string; readonly values: readonly unknown[] } | undefined;

  get text(): string {
    return this.render().text;
  }

  get values(): readonly unknown[] {
    return this.render().values;
  }

  private render(): { readonly text: string; readonly values: readonly unknown[] } {
    const values: unknown[] = [];
    this.rendered ??= { text: appendFragment(this, values), values };
    return this.rendered;
  }
}

function appendFragment(fragment: Fragment, values: unknown[]): string {
  let text = fragment.strings[0] ?? "";
  fragment.parts.forEach((part, index) => {
    if (part instanceof Fragment) text += appendFragment(part, values);
    else text += `$${values.push(part)}`;
    text += fragment.strings[index + 1] ?? "";
  });
  return text;
}

/**
 * Tagged template for SQL: every `${value}` becomes a numbered parameter, every `${sql`…`}` is
 * spliced in with its own parameters. Text from outside can only ever arrive as a parameter.
 */
export function sql(strings: TemplateStringsArray, ...parts: readonly unknown[]): Sql {
  return new Fragment(strings, parts);
}

/** Fragments joined by a fragment, e.g. conditions by `` sql` AND ` ``; an empty list gives an empty fragment. */
export function joinSql(fragments: readonly Sql[], separator: Sql): Sql {
  const strings = fragments.length === 0 ? [""] : ["", ...fragments.slice(1).flatMap(() => ["", ""]), ""];
  const parts = fragments.flatMap((fragment, index) => (index === 0 ? [fragment] : [separator, fragment]));
  return new Fragment(strings, parts);
}

/**
 * The statement, planned once on each connection and not each time. For few, hot statements whose text is always the same:
 * each text stays in memory as long as its connection lives.
 */
export function prepared(statement: Sql): Sql {
  return { text: statement.text, values: statement.values, isPrepared: true };
}
