import { type Logger, pino } from "pino";
import type { AgentConfig } from "./config.ts";

// Nothing logs these on purpose; should a detail object ever carry one, it is cut out.
const secretNames = ["key", "keyPem", "privateKey", "privateKeyPem", "token", "secret", "proof", "signature"];

/** One JSON object a line on standard output, where the journal of the host takes it. */
export function createAgentLog(level: AgentConfig["logLevel"]): Logger {
  return pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: secretNames.flatMap((name) => [name, `*.${name}`]), censor: "[removed]" },
  });
}
