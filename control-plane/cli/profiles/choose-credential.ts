import { NotSignedInError, UsageError } from "../errors.ts";
import { isId } from "../pod-reference.ts";
import type { Profile, Profiles } from "./profile-file.ts";

/** Where a control plane is looked for when nobody says otherwise. */
export const defaultUrl = "http://127.0.0.1:8080";

/** With whom a command talks and as who. */
export interface Connection {
  readonly profileName: string;
  readonly baseUrl: string;
  readonly token: string | undefined;
  readonly tenantId: string | undefined;
  /** A tenant that the profile does not know by this slug; only operators may act for such. */
  readonly strangeTenant?: string;
}

/** What a command line says about it. */
export interface Wishes {
  readonly profile?: string | undefined;
  /** Id or slug. */
  readonly tenant?: string | undefined;
}

/**
 * Address and credential: the environment before the profile. A profile's credential goes to the profile's own
 * address only.
 *
 * @throws UsageError
 */
export function chooseConnection(profiles: Profiles, wishes: Wishes, environment: NodeJS.ProcessEnv): Connection {
  const profileName = nameOfProfile(profiles, wishes, environment);
  const profile = profiles.profiles[profileName];
  if (profile === undefined && (wishes.profile ?? environment["CLOUDPODS_PROFILE"]) !== undefined)
    throw new UsageError(`There is no profile ${profileName}; sign in with: cloudpods login --profile ${profileName}`);
  const baseUrl = originOf(environment["CLOUDPODS_API_URL"] || profile?.url || defaultUrl);
  const own = profile !== undefined && originOf(profile.url) === baseUrl ? profile : undefined;
  return {
    profileName,
    baseUrl,
    token: environment["CLOUDPODS_TOKEN"] || own?.token,
    ...(wishes.tenant === undefined ? { tenantId: own?.tenantId } : tenantNamed(wishes.tenant, own)),
  };
}

/** Name of the profile that a command uses or makes. */
export function nameOfProfile(profiles: Profiles, wishes: Wishes, environment: NodeJS.ProcessEnv): string {
  return wishes.profile ?? (environment["CLOUDPODS_PROFILE"] || profiles.current);
}

/** @throws NotSignedInError when there is no credential */
export function requireToken({ token, baseUrl }: Connection): string {
  if (token !== undefined) return token;
  throw new NotSignedInError(`You are not signed in to ${baseUrl}; run: cloudpods login --url ${baseUrl}`);
}

/** The address without path; @throws UsageError for what is none */
export function originOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "https:" || url?.protocol === "http:") return url.origin;
  throw new UsageError(`${text} is no address such as https://cloudpods.example`);
}

function tenantNamed(reference: string, profile: Profile | undefined): Pick<Connection, "tenantId" | "strangeTenant"> {
  const known = isId(reference) ? reference : profile?.tenants.find(({ slug }) => slug === reference)?.id;
  return known === undefined ? { tenantId: undefined, strangeTenant: reference } : { tenantId: known };
}
