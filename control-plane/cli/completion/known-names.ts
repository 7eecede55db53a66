import type { Api } from "../api/client.ts";
import { ApiRefusal } from "../errors.ts";
import { openCli } from "../open-cli.ts";
import { profilePath, readProfiles } from "../profiles/profile-file.ts";
import type { Completion, Continuation, NameKind } from "./complete.ts";

/** Whoever presses a key does not wait for a control plane that is slow or away. */
const deadlineMs = 1_500;
const namesMax = 200;

/** Names of a kind, as far as they can be had quickly; none rather than an error. */
export async function knownNames(
  kind: Exclude<NameKind, "file">,
  told: Continuation["told"],
): Promise<readonly Completion[]> {
  try {
    if (kind === "profile") return await profileNames();
    const { profile, tenant } = told;
    const { api } = await openCli({
      timeout: deadlineMs,
      isPublic: kind === "plan",
      ...(profile === undefined ? {} : { profile }),
      ...(tenant === undefined ? {} : { tenant }),
    });
    return await namesFrom(api, kind);
  } catch {
    return [];
  }
}

async function profileNames(): Promise<Completion[]> {
  const { profiles } = await readProfiles(profilePath(process.env));
  return Object.entries(profiles).map(([word, { url, email }]) => ({
    word,
    description: `${email ?? "API token"} at ${url}`,
  }));
}

async function namesFrom(api: Api, kind: "node" | "pod" | "plan"): Promise<Completion[]> {
  const query = { limit: namesMax };
  if (kind === "plan") {
    const { data } = (await api.call("listPlans", {})).body;
    return data.map(({ code, name }) => ({ word: code, description: name }));
  }
  if (kind === "node") {
    const { data } = (await api.call("listNodes", { query })).body;
    return data.map(({ name, state }) => ({ word: name, description: state }));
  }
  const { data } = (
    await api.call("listPods", { query }).catch((error: unknown) => {
      // Operators are in no tenant and mean any of them.
      if (error instanceof ApiRefusal && error.problem.error === "TENANT_REQUIRED")
        return api.call("listAllPods", { query });
      throw error;
    })
  ).body;
  return data.map(({ hostname, vmid, status }) => ({ word: hostname, description: `${vmid}, ${status}` }));
}
