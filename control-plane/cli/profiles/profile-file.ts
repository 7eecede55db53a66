import { chmod, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { z } from "zod";

const profile = z.object({
  url: z.string(),
  /** A session's or an API token. */
  token: z.string(),
  /** Undefined for an API token. */
  email: z.string().optional(),
  /** Tenant to act in when the command names none. */
  tenantId: z.string().optional(),
  /** For tenants that are named by their slug. */
  tenants: z.array(z.object({ id: z.string(), slug: z.string() })),
});

const content = z.object({ current: z.string(), profiles: z.record(z.string(), profile) });

/** A sign-in that is kept. */
export type Profile = z.infer<typeof profile>;

/** All sign-ins and the one that is used when none is named. */
export type Profiles = z.infer<typeof content>;

/** Where profiles are kept: in the folder that the XDG specification says. */
export function profilePath(environment: NodeJS.ProcessEnv): string {
  const given = environment["XDG_CONFIG_HOME"];
  // The specification: a relative path is to be ignored.
  const base = given?.startsWith("/") === true ? given : join(environment["HOME"] ?? homedir(), ".config");
  return join(base, "cloudpods", "profiles.json");
}

/** @throws Error when others can read the file, or when it is not one of ours */
export async function readProfiles(path: string): Promise<Profiles> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return { current: "default", profiles: {} };
  if (((await stat(path)).mode & 0o077) !== 0)
    throw new Error(`${path} holds secrets and can be read by others; run: chmod 600 ${path}`);
  const parsed = content.safeParse(parse(text));
  if (!parsed.success) throw new Error(`${path} cannot be read; remove it and sign in again`);
  return parsed.data;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Replaces the file as a whole, so that a crash leaves the old or the new one. */
export async function writeProfiles(path: string, profiles: Profiles): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const draft = `${path}.${process.pid}`;
  await writeFile(draft, `${JSON.stringify(profiles, undefined, 2)}\n`, { mode: 0o600 });
  // The mode above is only that of a file that was not there.
  await chmod(draft, 0o600);
  await rename(draft, path);
}
