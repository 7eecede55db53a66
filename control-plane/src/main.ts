import { createInterface } from "node:readline";
import { Command, InvalidArgumentError } from "commander";
import { addFleetCommands, withDatabase, withPreparedDatabase } from "./admin-commands.ts";
import { startControlPlane } from "./compose.ts";
import { ConfigError, readConfig, roles } from "./config.ts";
import { createLog } from "./platform/log.ts";
import { createUser } from "./tenancy/create-user.ts";
import { addMeteringCommands, addUsageCommands } from "./usage-commands.ts";

/** EX_CONFIG of sysexits.h: starting again will not help. */
const configurationExitCode = 78;

const program = new Command("cloudpods").description("Turns Proxmox VE hosts into a hosting company.");

program
  .command("serve")
  .description("run the control plane")
  .option("--roles <list>", `what this replica does, of ${roles.join(",")}`)
  .action(async (options: { roles?: string }) => {
    await guarded(() =>
      serve({ ...process.env, ...(options.roles === undefined ? {} : { CLOUDPODS_ROLES: options.roles }) }),
    );
  });

program
  .command("migrate")
  .description("bring the database's schema up to date")
  .action(async () => {
    await guarded(async () => {
      const applied = await withPreparedDatabase(readConfig(process.env), async (database) => database.applied);
      console.log(applied.length === 0 ? "The schema is up to date." : `Applied: ${applied.join(", ")}`);
    });
  });

const admin = program.command("admin").description("things that need no running control plane");

admin
  .command("create-user")
  .description("make a user; the password is read from the standard input")
  .requiredOption("--email <address>")
  .option("--platform-role <role>", "ADMINISTRATOR, OPERATOR or USER", platformRole, "USER")
  .option("--email-verified", "vouch that the address is the user's", false)
  .action(
    async (options: { email: string; platformRole: "ADMINISTRATOR" | "OPERATOR" | "USER"; emailVerified: boolean }) => {
      await guarded(async () => {
        const password = await readPassword();
        const user = await withDatabase(readConfig(process.env), (system) =>
          system.transaction((tx) => createUser(tx, { ...options, password })),
        );
        console.log(`Made ${options.email} (${options.platformRole}), id ${user.id}.`);
      });
    },
  );

addFleetCommands(admin, (work) => guarded(() => work(readConfig(process.env))));
addUsageCommands(program, (work) => guarded(() => work(readConfig(process.env))));
addMeteringCommands(program, (work) => guarded(() => work(readConfig(process.env))));

await program.parseAsync();

async function serve(environment: NodeJS.ProcessEnv): Promise<void> {
  const config = readConfig(environment);
  const log = createLog({ level: config.logLevel });
  const starting = startControlPlane(config, log);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.once(signal, () => {
      log.info({ signal }, "stopping");
      // Half a start cannot be undone; a whole one can, the embedded server included.
      starting
        .then((controlPlane) => controlPlane.stop())
        .then(
          () => process.exit(0),
          (error: unknown) => {
            log.error({ err: error }, "not everything stopped in time");
            process.exit(1);
          },
        );
    });
  }
  await starting;
}

async function guarded(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exit(error instanceof ConfigError ? configurationExitCode : 1);
  }
}

function platformRole(text: string): "ADMINISTRATOR" | "OPERATOR" | "USER" {
  if (text === "ADMINISTRATOR" || text === "OPERATOR" || text === "USER") return text;
  throw new InvalidArgumentError("ADMINISTRATOR, OPERATOR or USER");
}

async function readPassword(): Promise<string> {
  const lines = createInterface({ input: process.stdin });
  for await (const line of lines) {
    lines.close();
    if (line.length > 0) return line;
  }
  throw new Error("no password came over the standard input");
}
