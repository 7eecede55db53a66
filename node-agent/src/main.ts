import { Command } from "commander";
import { AgentError, codeOf, messageOf } from "./agent-error.ts";
import { readBootId } from "./clock/disciplined-clock.ts";
import { type AgentConfig, readConfig } from "./config.ts";
import { readAgentVersion, readHostFacts } from "./host-facts.ts";

/** EX_CONFIG of sysexits.h: starting again will not help. */
const configurationExitCode = 78;

const program = new Command("cloudpods-agent")
  .description("Runs containers on this host for a CloudPods control plane.")
  .version(readAgentVersion());

program
  .command("run", { isDefault: true })
  .description("work until told to stop")
  .action(() => attempt(run));
program
  .command("join")
  .description("enrol this host with a join token")
  .requiredOption("--server <url>", "address of the control plane, e.g. https://cloud.example.com")
  .requiredOption("--token <token>", "join token as printed by the control plane")
  .action((options: { server: string; token: string }) =>
    attempt(async (config) => {
      // Loaded only where they are needed: they would stay in the memory of the resident agent.
      const [{ joinControlPlane }, { lockStateDir }] = await Promise.all([
        import("./enrolment/join.ts"),
        import("./state-lock.ts"),
      ]);
      const lock = lockStateDir(config.stateDir);
      const identity = await joinControlPlane(config.stateDir, options.server, options.token, readHostFacts(config));
      lock.release();
      process.stdout.write(`Joined as node ${identity.nodeId}; the gateway is ${identity.gatewayAddress}.\n`);
    }),
  );
program
  .command("renew")
  .description("fetch a new certificate now; a running agent does so by itself")
  .action(() =>
    attempt(async (config) => {
      const [{ renewCertificate }, { retryWithBackoff }, { lockStateDir }, { readCertificate }] = await Promise.all([
        import("./enrolment/renew.ts"),
        import("./enrolment/retry.ts"),
        import("./state-lock.ts"),
        import("./enrolment/check-certificate.ts"),
      ]);
      const lock = lockStateDir(config.stateDir);
      const identity = await retryWithBackoff(() => renewCertificate(config.stateDir));
      lock.release();
      const { notAfterMs } = readCertificate(identity.certificatePem);
      process.stdout.write(`The new certificate is valid until ${new Date(notAfterMs).toISOString()}.\n`);
    }),
  );
program
  .command("start-owned")
  .description("after a boot: start this host's containers without waiting for the control plane")
  .action(() =>
    attempt(async (config) => {
      const { requestStartOwned } = await import("./start-owned-file.ts");
      requestStartOwned(config.stateDir, readBootId(config.host.procRoot));
      process.stdout.write("The agent starts the containers that should run as soon as it looks, within a second.\n");
    }),
  );
program
  .command("status")
  .description("print what the agent on this host does, as JSON")
  .action(() =>
    attempt(async (config) => {
      const { describeStatus } = await import("./describe-status.ts");
      process.stdout.write(`${JSON.stringify(describeStatus(config), null, 2)}\n`);
    }),
  );

await program.parseAsync();

async function run(config: AgentConfig): Promise<void> {
  const [{ startAgent }, { createAgentLog }, { stopOnSignals }] = await Promise.all([
    import("./compose.ts"),
    import("./agent-log.ts"),
    import("./stop-on-signals.ts"),
  ]);
  const log = createAgentLog(config.logLevel);
  const agent = startAgent(config, log);
  stopOnSignals(agent, log);
}

/** Runs a sub-command; a failure is told in one line with its code. */
async function attempt(work: (config: AgentConfig) => Promise<void>): Promise<void> {
  try {
    await work(readConfig(process.env));
  } catch (error) {
    process.stderr.write(`cloudpods-agent: ${codeOf(error) ?? "INTERNAL_ERROR"}: ${messageOf(error)}\n`);
    const isConfiguration = error instanceof AgentError && error.code === "INVALID_CONFIGURATION";
    process.exitCode = isConfiguration ? configurationExitCode : 1;
  }
}
