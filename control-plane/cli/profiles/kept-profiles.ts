import { UsageError } from "../errors.ts";
import { output } from "../terminal/output.ts";
import { renderTable } from "../terminal/table.ts";
import { profilePath, readProfiles, writeProfiles } from "./profile-file.ts";

/** Prints the sign-ins that are kept, without their secrets. */
export async function showProfiles(isJson: boolean): Promise<void> {
  const { current, profiles } = await readProfiles(profilePath(process.env));
  const shown = Object.entries(profiles).map(([name, { url, email, tenantId, tenants }]) => ({
    name,
    isCurrent: name === current,
    url,
    email: email ?? null,
    tenant: tenants.find(({ id }) => id === tenantId)?.slug ?? tenantId ?? null,
  }));
  if (isJson) return output.raw(JSON.stringify({ current, profiles: shown }));
  output.print(
    renderTable(
      [
        { name: "profile", value: ({ name }) => name },
        { name: "current", value: ({ isCurrent }) => (isCurrent ? "yes" : null) },
        { name: "control plane", value: ({ url }) => url },
        { name: "as", value: ({ email }) => email ?? "API token" },
        { name: "tenant", value: ({ tenant }) => tenant },
      ],
      shown,
    ),
  );
}

/** Makes a profile the one that is used where none is named. @throws UsageError when it is not there */
export async function useProfile(name: string): Promise<void> {
  const path = profilePath(process.env);
  const { profiles } = await readProfiles(path);
  const chosen = profiles[name];
  if (chosen === undefined) throw new UsageError(`There is no profile ${name} (see cloudpods profiles ls).`);
  await writeProfiles(path, { current: name, profiles });
  const { CLOUDPODS_PROFILE: other } = process.env;
  output.print(`Profile ${name} is current: ${chosen.email ?? "the API token"} at ${chosen.url}.`);
  if (other !== undefined && other !== "" && other !== name)
    output.note(`cloudpods: CLOUDPODS_PROFILE still names ${other}`);
}
