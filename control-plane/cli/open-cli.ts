import { type Answer, type Api, createApi } from "./api/client.ts";
import type { EndpointName, InputOf } from "./api/endpoints.ts";
import { withNamedPods } from "./api/named-pods.ts";
import { tenantBySlug } from "./api/tenant-by-slug.ts";
import type { ClientOptions } from "./client-command.ts";
import { chooseConnection, requireToken, type Connection } from "./profiles/choose-credential.ts";
import { profilePath, readProfiles } from "./profiles/profile-file.ts";
import { output, type Output } from "./terminal/output.ts";

/** What a command works with. */
export interface OpenedCli {
  readonly api: Api;
  readonly connection: Connection;
  readonly out: Output;
  readonly isJson: boolean;
  /** Prints an answer: as it came with `--json`, else as `render` shows it. */
  show<Body>(answer: Answer<Body>, render: (body: Body) => string): void;
}

/**
 * Opens the way to the control plane that the options and the environment name.
 * @throws NotSignedInError unless `isPublic`
 */
export async function openCli(options: ClientOptions & { readonly isPublic?: boolean }): Promise<OpenedCli> {
  const profiles = await readProfiles(profilePath(process.env));
  const chosen = chooseConnection(profiles, options, process.env);
  if (options.isPublic !== true) requireToken(chosen);
  const way = { deadlineMs: options.timeout, onRetry: noteOnce };
  const { strangeTenant } = chosen;
  const connection =
    strangeTenant === undefined
      ? chosen
      : { ...chosen, tenantId: await tenantBySlug(createApi({ ...chosen, ...way }), strangeTenant) };
  const isJson = options.json === true;
  return {
    connection,
    out: output,
    isJson,
    api: withNamedPods(createApi({ ...connection, ...way })),
    show(answer, render) {
      if (isJson) output.raw(answer.text === "" ? "null" : answer.text);
      else output.print(render(answer.body));
    },
  };
}

let noted = false;

/** Says why it takes longer; once is enough. */
export function noteOnce(reason: string): void {
  if (!noted) output.note(`cloudpods: ${reason}; trying again`);
  noted = true;
}

const pageSize = 200;

/** Endpoints that answer a page of a list. */
export type ListName = { [N in EndpointName]: N extends `list${string}` ? N : never }[EndpointName];

interface Page {
  readonly data: readonly unknown[];
  readonly nextCursor: string | null;
}

/** A list of at most `limit` items, of as many pages as that takes, in the form of one page. */
export async function listAll<Name extends Exclude<ListName, "listPlans">>(
  { api, out }: OpenedCli,
  name: Name,
  input: InputOf<Name>,
  limit: number,
): Promise<Awaited<ReturnType<typeof api.call<Name>>>> {
  const data: unknown[] = [];
  const shown: unknown[] = [];
  let cursor: string | null = null;
  do {
    const query: Record<string, string | number | undefined> = {
      ...input.query,
      limit: Math.min(pageSize, limit - data.length),
      cursor: cursor ?? undefined,
    };
    // Every list has the same form of page around its items.
    const answer = await api.call(name, { ...input, query });
    const page = answer.body as Page;
    data.push(...page.data);
    shown.push(...(JSON.parse(answer.text) as Page).data);
    cursor = page.nextCursor;
  } while (cursor !== null && data.length < limit);
  if (cursor !== null) out.note(`cloudpods: there are more than ${limit}; see --limit`);
  const text = JSON.stringify({ data: shown, nextCursor: cursor });
  return { text, body: { data, nextCursor: cursor } } as never;
}
