import { pino, type DestinationStream, type Logger } from "pino";

/** Options of the log. */
export interface LogOptions {
  readonly level: string;
  /** Where lines go; default the standard output. */
  readonly destination?: DestinationStream;
}

// Names under which a secret could be logged by mistake, at the top and one level down.
const secretNames = [
  "password",
  "passwordHash",
  "token",
  "secret",
  "csrfToken",
  "authorization",
  "cookie",
  "privateKey",
  "key",
  "joinToken",
  "databaseUrl",
];

/** A structured log: one JSON object a line, errors with their causes, secrets removed. */
export function createLog(options: LogOptions): Logger {
  const settings = {
    level: options.level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: secretNames.flatMap((name) => [name, `*.${name}`, `headers["${name}"]`]), censor: "[removed]" },
    serializers: { err: pino.stdSerializers.errWithCause },
  };
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination);
}
