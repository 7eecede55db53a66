/** Cookie with the session; not readable by scripts. */
export const sessionCookie = "cloudpods_session";
/** Cookie with the CSRF token, readable by the dashboard, which sends it back in `csrfHeader`. */
const csrfCookie = "cloudpods_csrf";
/** Header that every changing request with the session cookie needs: another site cannot set it. */
export const csrfHeader = "x-csrf-token";

/** Value of a cookie in a Cookie header. */
export function readCookie(header: string | undefined, name: string): string | undefined {
  for (const part of (header ?? "").split(";")) {
    const [key, value] = part.trim().split("=", 2);
    if (key === name && value !== undefined && value !== "") return value;
  }
  return undefined;
}

/** The Set-Cookie headers of a new session, or of none: both cookies end at once. */
export function sessionCookies(
  session: { readonly token: string; readonly csrfToken: string; readonly expiresAt: Date } | undefined,
  secure: boolean,
): string[] {
  const ending = session === undefined ? "Max-Age=0" : `Expires=${session.expiresAt.toUTCString()}`;
  const attributes = `Path=/; SameSite=Lax; ${ending}${secure ? "; Secure" : ""}`;
  return [
    `${sessionCookie}=${session?.token ?? ""}; HttpOnly; ${attributes}`,
    `${csrfCookie}=${session?.csrfToken ?? ""}; ${attributes}`,
  ];
}
