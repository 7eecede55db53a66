import { AgentError, codeOf, messageOf } from "./agent-error.ts";
import { type AgentConfig, readConfig } from "./config.ts";

/** EX_CONFIG of sysexits.h: starting again will not help. */
const configurationExitCode = 78;

try {
  const config = readConfig(process.env);
  const [command = "run", ...rest] = process.argv.slice(2);
  if (command === "run" && rest.length === 0) {
    await run(config);
  } else {
    // Loaded only for its moment: the parser of command lines would stay in the resident agent.
    const { runSubCommand } = await import("./sub-commands.ts");
    await runSubCommand(process.argv, config);
  }
} catch (error) {
  process.stderr.write(`cloudpods-agent: ${codeOf(error) ?? "INTERNAL_ERROR"}: ${messageOf(error)}\n`);
  const isConfiguration = error instanceof AgentError && error.code === "INVALID_CONFIGURATION";
  process.exitCode = isConfiguration ? configurationExitCode : 1;
}

async function run(config: AgentConfig): Promise<void> {
  const [{ startAgent }, { createAgentLog }, { stopOnSignals }] = await Promise.all([
    import("./compose.ts"),
    import("./agent-log.ts"),
    import("./stop-on-signals.ts"),
  ]);
  const log = createAgentLog(config.logLevel);
  stopOnSignals(startAgent(config, log), log);
}
