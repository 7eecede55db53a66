/** A month of usage: always UTC, half open. */
export interface UsageMonth {
  /** "2026-01" */
  readonly yearMonth: string;
  readonly start: Date;
  readonly end: Date;
}

/** The month of a text such as "2026-01". @throws RangeError for any other text */
export function usageMonth(yearMonth: string): UsageMonth {
  const [, year, month] = /^(\d{4})-(0[1-9]|1[0-2])$/.exec(yearMonth) ?? [];
  if (year === undefined || month === undefined) throw new RangeError(`${yearMonth} is not a month such as 2026-01`);
  const at = (months: number): Date => new Date(Date.UTC(Number(year), Number(month) - 1 + months, 1));
  return { yearMonth, start: at(0), end: at(1) };
}

/** The month that an instant lies in. */
export function usageMonthOf(at: Date): UsageMonth {
  return usageMonth(at.toISOString().slice(0, 7));
}
