import { chmod, mkdtemp, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { NotSignedInError, UsageError } from "../errors.ts";
import { chooseConnection, requireToken } from "./choose-credential.ts";
import { profilePath, readProfiles, writeProfiles } from "./profile-file.ts";

const tenants = [{ id: "019a0000-0000-7000-8000-000000000001", slug: "demo" }];
const profiles = {
  current: "work",
  profiles: {
    work: { url: "https://pods.example", token: "work-secret", email: "a@example.com", tenants },
    home: { url: "http://127.0.0.1:8080", token: "home-secret", tenants: [] },
  },
};

test("the environment comes before the profile, the option before both", () => {
  expect(chooseConnection(profiles, {}, {})).toMatchObject({ baseUrl: "https://pods.example", token: "work-secret" });
  expect(chooseConnection(profiles, {}, { CLOUDPODS_PROFILE: "home" })).toMatchObject({ token: "home-secret" });
  expect(chooseConnection(profiles, { profile: "work" }, { CLOUDPODS_PROFILE: "home" }).token).toBe("work-secret");
  expect(chooseConnection(profiles, {}, { CLOUDPODS_TOKEN: "t", CLOUDPODS_API_URL: "http://other.example/" })).toEqual({
    profileName: "work",
    baseUrl: "http://other.example",
    token: "t",
    tenantId: undefined,
  });
});

test("a profile's credential goes nowhere else", () => {
  const elsewhere = chooseConnection(profiles, {}, { CLOUDPODS_API_URL: "https://pods.example.evil.test" });
  expect(elsewhere.token).toBeUndefined();
  expect(() => requireToken(elsewhere)).toThrow(NotSignedInError);
  expect(chooseConnection(profiles, {}, { CLOUDPODS_API_URL: "http://pods.example" }).token).toBeUndefined();
});

test("a tenant is named by its id or the slug of one's own", () => {
  expect(chooseConnection(profiles, { tenant: "demo" }, {}).tenantId).toBe(tenants[0]?.id);
  const other = "019a0000-0000-7000-8000-000000000009";
  expect(chooseConnection(profiles, { tenant: other }, {}).tenantId).toBe(other);
  const strange = chooseConnection(profiles, { tenant: "theirs" }, {});
  expect(strange).toMatchObject({ tenantId: undefined, strangeTenant: "theirs" });
});

test.each([
  ["a profile that is not there", { profile: "nobody" }, {}],
  ["an address that is none", {}, { CLOUDPODS_API_URL: "pods.example" }],
  ["an address of another kind", {}, { CLOUDPODS_API_URL: "file:///etc/passwd" }],
])("%s is told", (_, wishes, environment) => {
  expect(() => chooseConnection(profiles, wishes, environment)).toThrow(UsageError);
});

test("profiles are kept where only their owner reads them, and are refused where others do", async () => {
  const folder = await mkdtemp(join(tmpdir(), "profiles-"));
  const path = profilePath({ XDG_CONFIG_HOME: folder });
  expect(path).toBe(join(folder, "cloudpods/profiles.json"));
  expect(profilePath({ XDG_CONFIG_HOME: "relative", HOME: "/home/a" })).toBe("/home/a/.config/cloudpods/profiles.json");
  expect(await readProfiles(path)).toEqual({ current: "default", profiles: {} });
  await writeProfiles(path, profiles);
  expect(await readProfiles(path)).toEqual(profiles);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  await chmod(path, 0o644);
  await expect(readProfiles(path)).rejects.toThrow("chmod 600");
  await writeProfiles(path, profiles);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
});
