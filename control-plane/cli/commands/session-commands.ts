import type { Command } from "commander";
import { addClientOptions, clientCommand, withCli, type ClientOptions } from "../client-command.ts";

/** Adds sign-in, sign-out and who one is. */
export function addSessionCommands(program: Command): void {
  addClientOptions(program.command("login"))
    .description("sign in and keep it as a profile, by password or API token")
    .option("--url <address>", "of the control plane (CLOUDPODS_API_URL)")
    .option("--email <address>", "who signs in")
    .option("--password-stdin", "the password is the first line of the standard input")
    .option("--token-stdin", "an API token is the first line of the standard input")
    .action(async (options: LoginOptions) => {
      await (await import("../profiles/sign-in.ts")).signIn(options);
    });
  addClientOptions(program.command("logout"))
    .description("end the session and forget the profile")
    .action(async (options: ClientOptions) => {
      await (await import("../profiles/sign-in.ts")).signOut(options);
    });
  addProfiles(program);
  clientCommand(program, "whoami", "who is signed in, and where").action(async (options: ClientOptions) => {
    await withCli(options, async (cli) => (await import("../profiles/sign-in.ts")).showWho(cli));
  });
}

function addProfiles(program: Command): void {
  const profiles = program.command("profiles").description("sign-ins that are kept");
  profiles
    .command("ls")
    .description("all of them; the current one is used where none is named")
    .option("--json", "print it as JSON, without the secrets")
    .action(async ({ json }: { readonly json?: true }) => {
      await (await import("../profiles/kept-profiles.ts")).showProfiles(json === true);
    });
  profiles
    .command("use")
    .description("make one the current one")
    .argument("<profile>", "see: cloudpods profiles ls")
    .action(async (name: string) => {
      await (await import("../profiles/kept-profiles.ts")).useProfile(name);
    });
}

/** What `login` can be told. */
export interface LoginOptions extends ClientOptions {
  readonly url?: string;
  readonly email?: string;
  readonly passwordStdin?: true;
  readonly tokenStdin?: true;
}
