import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..");

/** Paths that a document names in backticks, as far as they begin with a folder of the project. */
function namedPaths(document: string): string[] {
  const text = readFileSync(join(root, document), "utf8");
  const named = [...text.matchAll(/`([a-z-]+\/[A-Za-z0-9_./-]+)`/g)].map((match) => match[1] ?? "");
  return named.filter((path) => /^(control-plane|node-agent|shared|proto|test|tools|deploy)\//.test(path));
}

test.each(["README.md", "ARCHITECTURE.md", "test/bench/README.md"])("%s names only what exists", (document) => {
  const paths = namedPaths(document);
  expect(paths.length).toBeGreaterThan(0);
  expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
});

test("every npm command that a document names exists", () => {
  const manifest: { scripts: Record<string, string> } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const document of ["README.md", "ARCHITECTURE.md", "test/bench/README.md"]) {
    const named = [...readFileSync(join(root, document), "utf8").matchAll(/npm run ([a-z:-]+)/g)].map(
      (match) => match[1] ?? "",
    );
    expect(named.filter((name) => !(name in manifest.scripts))).toEqual([]);
  }
});
