/**
 * The plan code that someone means: without regard to case the exact one, else the only one of which it is
 * the last words (`starter` means CLOUD_POD_STARTER). Undefined when none fits or several do.
 */
export function matchPlanCode(codes: readonly string[], meant: string): string | undefined {
  const wanted = meant.trim().toUpperCase();
  const exact = codes.find((code) => code.toUpperCase() === wanted);
  if (exact !== undefined || wanted === "") return exact;
  const [only, another] = codes.filter((code) => code.toUpperCase().endsWith(`_${wanted}`));
  return another === undefined ? only : undefined;
}
