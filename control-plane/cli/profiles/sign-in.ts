import { createApi, type Api } from "../api/client.ts";
import type { ClientOptions } from "../client-command.ts";
import type { LoginOptions } from "../commands/session-commands.ts";
import { ApiRefusal, UsageError } from "../errors.ts";
import { noteOnce, type OpenedCli } from "../open-cli.ts";
import { isId } from "../pod-reference.ts";
import { ask, askSecret, readSecretLine } from "../terminal/ask.ts";
import { output } from "../terminal/output.ts";
import { renderFields } from "../terminal/table.ts";
import { defaultUrl, nameOfProfile, originOf } from "./choose-credential.ts";
import { profilePath, readProfiles, writeProfiles, type Profile } from "./profile-file.ts";

/** Signs in and keeps it. @throws ApiRefusal, UsageError */
export async function signIn(options: LoginOptions): Promise<void> {
  const path = profilePath(process.env);
  const profiles = await readProfiles(path);
  const name = nameOfProfile(profiles, options, process.env);
  const url = originOf(options.url ?? (process.env["CLOUDPODS_API_URL"] || profiles.profiles[name]?.url || defaultUrl));
  if (!isPrivate(url)) output.note(`cloudpods: ${url} is not encrypted: others on the way can read the sign-in`);
  const made = options.tokenStdin === true ? await byToken(url, options) : await byPassword(url, options);
  const profile = { ...made.profile, ...tenantOf(options, made.profile) };
  await writeProfiles(path, { current: name, profiles: { ...profiles.profiles, [name]: profile } });
  if (options.json === true) output.raw(made.text);
  else output.print(`Signed in to ${url} as ${profile.email ?? "the API token"}; profile ${name} is current now.`);
}

/** The profile and what `--json` prints of it: no secret. */
interface Made {
  readonly profile: Profile;
  readonly text: string;
}

async function byPassword(url: string, options: LoginOptions): Promise<Made> {
  const email = options.email ?? (await ask("E-mail address: "));
  const password = options.passwordStdin === true ? await readSecretLine("password") : await askSecret("Password: ");
  const { body } = await apiOf(url, undefined, options).call("signIn", { body: { email, password } });
  const tenants = body.user.tenants.map(({ id, slug }) => ({ id, slug }));
  return { profile: { url, token: body.token, email, tenants }, text: JSON.stringify(body.user) };
}

async function byToken(url: string, options: LoginOptions): Promise<Made> {
  const token = await readSecretLine("API token");
  await proveToken(apiOf(url, token, options));
  return { profile: { url, token, tenants: [] }, text: JSON.stringify({ url }) };
}

/** Any answer but that it is nobody's. */
async function proveToken(api: Api): Promise<void> {
  try {
    await api.call("listPods", { query: { limit: 1 } });
  } catch (error) {
    if (!(error instanceof ApiRefusal) || error.problem.status === 401 || error.problem.status >= 500) throw error;
    if (error.problem.error === "ADDRESS_NOT_ALLOWED") throw error;
  }
}

function tenantOf({ tenant }: LoginOptions, { tenants }: Profile): { readonly tenantId?: string } {
  if (tenant === undefined) return {};
  const known = tenants.find(({ id, slug }) => id === tenant || slug === tenant);
  if (known !== undefined) return { tenantId: known.id };
  if (isId(tenant)) return { tenantId: tenant };
  throw new UsageError(`${tenant} is neither the id of a tenant nor the slug of one of yours`);
}

/** Ends the session, where it is one and can be reached, and forgets the profile. */
export async function signOut(options: ClientOptions): Promise<void> {
  const path = profilePath(process.env);
  const profiles = await readProfiles(path);
  const name = nameOfProfile(profiles, options, process.env);
  const { [name]: profile, ...others } = profiles.profiles;
  if (profile === undefined) throw new UsageError(`There is no profile ${name}.`);
  // Forgotten first: whatever the control plane says, this machine keeps no secret.
  await writeProfiles(path, { current: name === profiles.current ? "default" : profiles.current, profiles: others });
  if (profile.email === undefined) {
    output.print(`Profile ${name} is forgotten; its API token stays valid until it is revoked.`);
    return;
  }
  try {
    await apiOf(profile.url, profile.token, options).call("signOut", {});
  } catch (error) {
    if (!(error instanceof ApiRefusal) || error.problem.status !== 401) throw error; // it was over already
  }
  output.print(`Signed out of ${profile.url}; profile ${name} is forgotten.`);
}

/** Who is signed in. An API token may not ask for its user, so only that it is good is told. */
export async function showWho(cli: OpenedCli): Promise<void> {
  const { profileName, baseUrl, token = "" } = cli.connection;
  const where = { "control plane": baseUrl, profile: process.env["CLOUDPODS_TOKEN"] ? undefined : profileName };
  if (!token.startsWith("cpt_")) {
    const answer = await cli.api.call("showProfile", {});
    cli.show(answer, ({ email, platformRole, tenants }) =>
      renderFields({
        user: email,
        "platform role": platformRole,
        tenants: tenants.map(({ slug, role }) => `${slug} (${role})`).join(", "),
        ...where,
      }),
    );
    return;
  }
  await proveToken(cli.api);
  if (cli.isJson) cli.out.raw(JSON.stringify({ tokenPrefix: token.slice(0, 12) }));
  else cli.out.print(renderFields({ "API token": `${token.slice(0, 12)}…`, ...where }));
}

function apiOf(baseUrl: string, token: string | undefined, { timeout }: ClientOptions): Api {
  return createApi({ baseUrl, token, tenantId: undefined, deadlineMs: timeout, onRetry: noteOnce });
}

function isPrivate(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === "https:" || ["localhost", "127.0.0.1", "[::1]"].includes(hostname);
}
