import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";

/** What one replica does; where no replica has `broker`, a broker's address must be given. */
export const roles = ["api", "gateway", "ingest", "worker", "broker"] as const;
export type Role = (typeof roles)[number];

/** Configuration as the program uses it: parsed once, frozen, passed down as values. */
export interface Config {
  readonly roles: ReadonlySet<Role>;
  /** Undefined: an embedded PostgreSQL in the data directory. */
  readonly databaseUrl: string | undefined;
  /** Login of tenants' requests; undefined: made by `migrate`. */
  readonly databaseApiUrl: string | undefined;
  /** Undefined: the embedded broker, here or on another replica of the same database that has the role. */
  readonly mqttUrl: string | undefined;
  readonly dataDirectory: string;
  /** 32 bytes that seal secrets at rest; undefined: made once in the data directory. */
  readonly masterKey: Buffer | undefined;
  readonly httpHost: string;
  readonly httpPort: number;
  readonly gatewayHost: string;
  readonly gatewayPort: number;
  readonly brokerHost: string;
  readonly brokerPort: number;
  /** Name under which agents reach gateway and broker; in the server certificate. */
  readonly publicHost: string;
  readonly defaultRegion: string;
  /** Where samples and roll-ups are kept once they leave the database. */
  readonly archiveDirectory: string;
  readonly sampleIntervalMs: number;
  readonly heartbeatIntervalMs: number;
  /** Commands and results tell of changes at once; the inventory finds what nobody told. */
  readonly inventoryIntervalMs: number;
  /** How long a container of ours without a place must have been there before it is removed. */
  readonly orphanGraceMs: number;
  readonly logLevel: "debug" | "info" | "warn" | "error" | "silent";
  /** Secure flag of the session cookie: on unless the site is served over plain HTTP. */
  readonly secureCookies: boolean;
  /** Networks (CIDR) of the proxies whose X-Forwarded-For is believed. */
  readonly trustedProxies: readonly string[];
  /** Mail server and sender; undefined: e-mails wait for one and are given up after three days. */
  readonly mail: { readonly smtpUrl: string; readonly from: string } | undefined;
  /** Lets webhooks of tenants go to private addresses and over plain HTTP. */
  readonly webhookAllowPrivate: boolean;
}

const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback);

const environmentSchema = z.object({
  CLOUDPODS_ROLES: z
    .string()
    .default(roles.join(","))
    .transform((text) => text.split(",").map((part) => part.trim()))
    .pipe(z.array(z.enum(roles)).min(1)),
  CLOUDPODS_DATABASE_URL: z.url({ protocol: /^postgres(ql)?$/ }).optional(),
  CLOUDPODS_DATABASE_API_URL: z.url({ protocol: /^postgres(ql)?$/ }).optional(),
  CLOUDPODS_MQTT_URL: z.url({ protocol: /^mqtts$/, error: "must be mqtts://host:port" }).optional(),
  CLOUDPODS_DATA_DIR: z.string().min(1).default(".cloudpods"),
  CLOUDPODS_MASTER_KEY: z
    .string()
    .regex(/^[0-9a-fA-F]{64}$/, "must be 64 hexadecimal digits (32 bytes)")
    .optional(),
  CLOUDPODS_HTTP_HOST: z.string().min(1).default("127.0.0.1"),
  CLOUDPODS_HTTP_PORT: port(8080),
  CLOUDPODS_GATEWAY_HOST: z.string().min(1).default("0.0.0.0"),
  CLOUDPODS_GATEWAY_PORT: port(7443),
  CLOUDPODS_BROKER_HOST: z.string().min(1).default("0.0.0.0"),
  CLOUDPODS_BROKER_PORT: port(8883),
  CLOUDPODS_PUBLIC_HOST: z.string().min(1).default("localhost"),
  CLOUDPODS_ARCHIVE_DIR: z.string().min(1).optional(),
  CLOUDPODS_DEFAULT_REGION: z
    .string()
    .regex(/^[a-z0-9-]{1,40}$/, "must be lower-case letters, digits and dashes")
    .default("local"),
  CLOUDPODS_SAMPLE_INTERVAL_SECONDS: z.coerce.number().int().min(1).max(3_600).default(60),
  CLOUDPODS_HEARTBEAT_INTERVAL_SECONDS: z.coerce.number().int().min(1).max(60).default(10),
  CLOUDPODS_INVENTORY_INTERVAL_SECONDS: z.coerce.number().int().min(1).max(600).default(60),
  CLOUDPODS_ORPHAN_GRACE_SECONDS: z.coerce.number().int().min(1).max(604_800).default(600),
  CLOUDPODS_LOG_LEVEL: z.enum(["debug", "info", "warn", "error", "silent"]).default("info"),
  CLOUDPODS_SECURE_COOKIES: z.stringbool().default(true),
  CLOUDPODS_TRUSTED_PROXIES: z
    .string()
    .default("")
    .transform((text) => text.split(",").flatMap((part) => (part.trim() === "" ? [] : [part.trim()])))
    .pipe(
      z.array(z.union([z.cidrv4(), z.cidrv6()], { error: "must be networks such as 10.0.0.0/8, separated by commas" })),
    ),
  CLOUDPODS_SMTP_URL: z
    .url({ protocol: /^smtps?$/, error: "must be smtp://host:port or smtps://host:port" })
    .optional(),
  CLOUDPODS_MAIL_FROM: z
    .string()
    .regex(/^([^<>\r\n]* <)?[^\s<>@]+@[^\s<>@]+>?$/, "must be an address, or a name and an address in <>")
    .optional(),
  CLOUDPODS_WEBHOOK_ALLOW_PRIVATE: z.stringbool().default(false),
});

/** Every fault of the configuration at once, each with the name of its variable. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${problems.length === 1 ? "a fault" : `${problems.length} faults`}:\n${problems.map((line) => `  ${line}`).join("\n")}`,
    );
    this.problems = problems;
  }
}

/**
 * Reads the environment. `NAME_FILE` gives the value of `NAME` from a file, for secrets.
 * @throws ConfigError
 */
export function readConfig(environment: Readonly<Record<string, string | undefined>>): Config {
  const problems: string[] = [];
  const given = withFiles(environment, problems);
  const parsed = environmentSchema.safeParse(given);
  if (!parsed.success)
    problems.push(...parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`));
  problems.push(...unknownVariables(environment), ...missingVariables(given));
  if (!parsed.success || problems.length > 0) throw new ConfigError(problems);
  const values = parsed.data;
  return Object.freeze({
    roles: new Set(values.CLOUDPODS_ROLES),
    databaseUrl: values.CLOUDPODS_DATABASE_URL,
    databaseApiUrl: values.CLOUDPODS_DATABASE_API_URL,
    mqttUrl: values.CLOUDPODS_MQTT_URL,
    dataDirectory: resolve(values.CLOUDPODS_DATA_DIR),
    masterKey: values.CLOUDPODS_MASTER_KEY === undefined ? undefined : Buffer.from(values.CLOUDPODS_MASTER_KEY, "hex"),
    httpHost: values.CLOUDPODS_HTTP_HOST,
    httpPort: values.CLOUDPODS_HTTP_PORT,
    gatewayHost: values.CLOUDPODS_GATEWAY_HOST,
    gatewayPort: values.CLOUDPODS_GATEWAY_PORT,
    brokerHost: values.CLOUDPODS_BROKER_HOST,
    brokerPort: values.CLOUDPODS_BROKER_PORT,
    publicHost: values.CLOUDPODS_PUBLIC_HOST,
    defaultRegion: values.CLOUDPODS_DEFAULT_REGION,
    archiveDirectory: resolve(values.CLOUDPODS_ARCHIVE_DIR ?? join(values.CLOUDPODS_DATA_DIR, "archive")),
    sampleIntervalMs: values.CLOUDPODS_SAMPLE_INTERVAL_SECONDS * 1_000,
    heartbeatIntervalMs: values.CLOUDPODS_HEARTBEAT_INTERVAL_SECONDS * 1_000,
    inventoryIntervalMs: values.CLOUDPODS_INVENTORY_INTERVAL_SECONDS * 1_000,
    orphanGraceMs: values.CLOUDPODS_ORPHAN_GRACE_SECONDS * 1_000,
    logLevel: values.CLOUDPODS_LOG_LEVEL,
    secureCookies: values.CLOUDPODS_SECURE_COOKIES,
    trustedProxies: values.CLOUDPODS_TRUSTED_PROXIES,
    mail:
      values.CLOUDPODS_SMTP_URL === undefined || values.CLOUDPODS_MAIL_FROM === undefined
        ? undefined
        : { smtpUrl: values.CLOUDPODS_SMTP_URL, from: values.CLOUDPODS_MAIL_FROM },
    webhookAllowPrivate: values.CLOUDPODS_WEBHOOK_ALLOW_PRIVATE,
  });
}

function withFiles(
  environment: Readonly<Record<string, string | undefined>>,
  problems: string[],
): Record<string, string | undefined> {
  const values: Record<string, string | undefined> = {};
  for (const name of Object.keys(environmentSchema.shape)) {
    const path = environment[`${name}_FILE`];
    // An empty variable is an unset one: that is how unit files and containers unset.
    values[name] = environment[name] === "" ? undefined : environment[name];
    if (path === undefined || path === "") continue;
    try {
      values[name] = readFileSync(path, "utf8").trim();
    } catch {
      problems.push(`${name}_FILE: cannot be read`);
    }
  }
  return values;
}

/** What others make necessary. Looks at what was given, right or wrong, so that it is told with all other faults. */
function missingVariables(given: Readonly<Record<string, string | undefined>>): string[] {
  const missing: string[] = [];
  const has = (name: keyof typeof environmentSchema.shape): boolean => given[name] !== undefined;
  const ours = environmentSchema.shape.CLOUDPODS_ROLES.safeParse(given["CLOUDPODS_ROLES"]).data ?? roles;
  // Replicas of one database must open what the others sealed.
  if (has("CLOUDPODS_DATABASE_URL") && !has("CLOUDPODS_MASTER_KEY"))
    missing.push("CLOUDPODS_MASTER_KEY: required with CLOUDPODS_DATABASE_URL (32 bytes as 64 hexadecimal digits)");
  if (has("CLOUDPODS_SMTP_URL") && !has("CLOUDPODS_MAIL_FROM"))
    missing.push("CLOUDPODS_MAIL_FROM: required with CLOUDPODS_SMTP_URL (the sender of all mail)");
  // Nobody else can use an embedded database, and so nobody else can run the broker.
  const needsBroker = ours.includes("gateway") || ours.includes("ingest");
  if (needsBroker && !ours.includes("broker") && !has("CLOUDPODS_MQTT_URL") && !has("CLOUDPODS_DATABASE_URL"))
    missing.push(
      "CLOUDPODS_MQTT_URL: required for the roles gateway and ingest without the role broker, unless CLOUDPODS_DATABASE_URL is set and another replica runs the broker",
    );
  return missing;
}

/** Settings of commands that talk to a control plane; they may be there when one is started. */
const clientVariables = ["CLOUDPODS_API_URL", "CLOUDPODS_TOKEN", "CLOUDPODS_PROFILE"];

/** A misspelt variable would silently mean its default. */
function unknownVariables(environment: Readonly<Record<string, string | undefined>>): string[] {
  const known = new Set([
    ...Object.keys(environmentSchema.shape).flatMap((name) => [name, `${name}_FILE`]),
    ...clientVariables,
  ]);
  return Object.keys(environment)
    .filter((name) => name.startsWith("CLOUDPODS_") && !name.startsWith("CLOUDPODS_AGENT_") && !known.has(name))
    .map((name) => `${name}: there is no such setting`);
}
