/** Keeps the failure of one of many. @returns undefined when it failed */
export async function orNote<T>(failures: unknown[], work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    failures.push(error);
    return undefined;
  }
}
