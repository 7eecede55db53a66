import { CommanderError } from "commander";
import { ApiRefusal } from "./errors.ts";
import { exitCodeOf, exitCodes } from "./exit-codes.ts";
import { buildProgram } from "./program.ts";
import { describeError } from "./views/error-view.ts";
import { output } from "./terminal/output.ts";

// Whoever reads us may have seen enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

let hasAll = false;
try {
  const program = buildProgram();
  program.hook("preAction", (_, command) => {
    hasAll = command.options.some(({ long }) => long === "--all");
  });
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Help and version are no errors; everything else was told by commander.
    process.exitCode = error.exitCode === 0 ? exitCodes.ok.code : exitCodes.usage.code;
  } else {
    const isJson = process.argv.includes("--json");
    if (isJson && error instanceof ApiRefusal) process.stderr.write(`${error.text}\n`);
    else output.note(describeError(error, { hasAll, hasTokenOfEnvironment: Boolean(process.env["CLOUDPODS_TOKEN"]) }));
    // Half a start of the server would keep the process.
    process.exit(exitCodeOf(error));
  }
}
