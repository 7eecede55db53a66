import { Command } from "commander";
import { readBootId } from "./clock/disciplined-clock.ts";
import type { AgentConfig } from "./config.ts";
import { describeStatus } from "./describe-status.ts";
import { readCertificate } from "./enrolment/check-certificate.ts";
import { joinControlPlane } from "./enrolment/join.ts";
import { renewCertificate } from "./enrolment/renew.ts";
import { retryWithBackoff } from "./enrolment/retry.ts";
import { readAgentVersion, readHostFacts } from "./host-facts.ts";
import { requestStartOwned } from "./start-owned-file.ts";
import { lockStateDir } from "./state-lock.ts";

/** Carries out one sub-command other than a plain `run`. @throws AgentError of the sub-command */
export async function runSubCommand(argv: readonly string[], config: AgentConfig): Promise<void> {
  const { stateDir } = config;
  const program = new Command("cloudpods-agent")
    .description("Runs containers on this host for a CloudPods control plane.")
    .version(readAgentVersion());
  program.command("run").description("work until told to stop; also without any argument");
  program
    .command("join")
    .description("enrol this host with a join token")
    .requiredOption("--server <url>", "address of the control plane, e.g. https://cloud.example.com")
    .requiredOption("--token <token>", "join token as printed by the control plane")
    .action(async ({ server, token }: { readonly server: string; readonly token: string }) => {
      const { nodeId, gatewayAddress } = await locked(stateDir, () =>
        joinControlPlane(stateDir, server, token, readHostFacts(config)),
      );
      say(`Joined as node ${nodeId}; the gateway is ${gatewayAddress}.`);
    });
  program
    .command("renew")
    .description("fetch a new certificate now; a running agent does so by itself")
    .action(async () => {
      const identity = await locked(stateDir, () => retryWithBackoff(() => renewCertificate(stateDir)));
      const { notAfterMs } = readCertificate(identity.certificatePem);
      say(`The new certificate is valid until ${new Date(notAfterMs).toISOString()}.`);
    });
  program
    .command("start-owned")
    .description("after a boot: start this host's containers without waiting for the control plane")
    .action(() => {
      requestStartOwned(stateDir, readBootId(config.host.procRoot));
      say("The agent starts the containers that should run as soon as it looks, within a second.");
    });
  program
    .command("status")
    .description("print what the agent on this host does, as JSON")
    .action(() => say(JSON.stringify(describeStatus(config), null, 2)));
  await program.parseAsync(argv);
}

/** Works while no agent may touch the state directory. */
async function locked<T>(stateDir: string, work: () => Promise<T>): Promise<T> {
  const lock = lockStateDir(stateDir);
  try {
    return await work();
  } finally {
    lock.release();
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
