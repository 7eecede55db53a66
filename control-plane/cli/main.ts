import { CommanderError } from "commander";
import { UsageError } from "./errors.ts";
import { exitCodeOf, exitCodes } from "./exit-codes.ts";
import { buildProgram } from "./program.ts";
import { describeError, errorAsJson } from "./views/error-view.ts";
import { output } from "./terminal/output.ts";

// Whoever reads us may have seen enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

const isJson = process.argv.includes("--json");
let hasAll = false;
try {
  const program = buildProgram();
  program.hook("preAction", (_, command) => {
    hasAll = command.options.some(({ long }) => long === "--all");
  });
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Help and version are no errors; everything else was told to people by commander.
    process.exitCode = error.exitCode === 0 ? exitCodes.ok.code : exitCodes.usage.code;
    if (isJson && error.exitCode !== 0) process.stderr.write(`${errorAsJson(usageErrorOf(error))}\n`);
  } else {
    if (isJson) process.stderr.write(`${errorAsJson(error)}\n`);
    else output.note(describeError(error, { hasAll, hasTokenOfEnvironment: Boolean(process.env["CLOUDPODS_TOKEN"]) }));
    // Half a start of the server would keep the process.
    process.exit(exitCodeOf(error));
  }
}

function usageErrorOf({ code, message }: CommanderError): UsageError {
  // Where a command is missing commander shows help, and has no words of its own.
  return new UsageError(code === "commander.help" ? "A command is missing." : message.replace(/^error: /, ""));
}
