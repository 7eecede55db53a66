/** `2026-11-21 00:31:19` in the machine's zone, as the tools print times. */
export function localTime(epochMs: number): string {
  const time = new Date(epochMs);
  const two = (value: number): string => `${value}`.padStart(2, "0");
  const date = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${date} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}
