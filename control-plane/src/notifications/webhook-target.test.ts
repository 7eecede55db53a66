import { expect, test } from "vitest";
import { addressToReach, webhookUrlFault } from "./webhook-target.ts";

const strict = { allowPrivate: false };

test.each([
  ["https://127.0.0.1/hook", "private"],
  ["https://2130706433/hook", "private"],
  ["https://0x7f.1/hook", "private"],
  ["https://0177.0.0.1/hook", "private"],
  ["https://10.0.0.8/hook", "private"],
  ["https://169.254.169.254/latest/meta-data", "private"],
  ["https://[::1]/hook", "private"],
  ["https://[::ffff:10.0.0.1]/hook", "private"],
  ["https://[::ffff:8.8.8.8]/hook", "private"],
  ["http://example.com/hook", "https"],
  ["ftp://example.com/hook", "https"],
  ["file:///etc/passwd", "https"],
  ["https://user:secret@example.com/", "password"],
  ["not a url", "URL"],
  [`https://example.com/${"a".repeat(2_000)}`, "URL"],
])("%s is refused: %s", (url, why) => expect(webhookUrlFault(url, strict)).toContain(why));

test("a public https URL is fine, and with private targets allowed also plain http at home", () => {
  expect(webhookUrlFault("https://hooks.example.com:8443/a?b=c", strict)).toBeUndefined();
  expect(webhookUrlFault("https://8.8.8.8/", strict)).toBeUndefined();
  expect(webhookUrlFault("http://127.0.0.1:3000/", { allowPrivate: true })).toBeUndefined();
});

test.each([
  [["93.184.216.34"], "93.184.216.34"],
  [["2606:4700::1111", "93.184.216.34"], "2606:4700::1111"],
  [["93.184.216.34", "127.0.0.1"], undefined],
  [["10.0.0.1"], undefined],
  [["169.254.169.254"], undefined],
  [["::1"], undefined],
  [["::ffff:10.0.0.1"], undefined],
  [[], undefined],
])("a name with the addresses %j is reached at %s", async (addresses, expected) => {
  const url = new URL("https://hooks.example.com/");
  expect(await addressToReach(url, strict, async () => await Promise.resolve(addresses))).toBe(expected);
});

test("a literal address is not asked for, and judged all the same", async () => {
  const never = () => Promise.reject(new Error("asked"));
  expect(await addressToReach(new URL("https://[::1]/"), strict, never)).toBeUndefined();
  expect(await addressToReach(new URL("https://8.8.4.4/"), strict, never)).toBe("8.8.4.4");
});
