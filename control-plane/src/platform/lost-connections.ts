const askedOfServer =
  "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=25000";

/**
 * Of every connection to the database: both ends ask whether the other is still there. Where nobody asks, a machine that lost
 * its power leaves its transactions' locks behind for two hours, and whoever waits for the answer of a server that is gone
 * waits for ever. The server notices within half a minute, also while an answer is on its way, and takes whoever reads nothing
 * of that for so long as gone too. This end notices within twenty seconds where it waits; what it is still sending its kernel
 * repeats for a quarter of an hour, which cannot be set from here.
 */
export function noticesLoss(url: string): {
  readonly connectionString: string;
  readonly keepAlive: boolean;
  readonly keepAliveInitialDelayMillis: number;
} {
  const address = new URL(url);
  // The driver heeds one only, of the address before ours and ours before the environment's; the operator's come last and win.
  const operators = address.searchParams.get("options") ?? process.env["PGOPTIONS"] ?? "";
  address.searchParams.set("options", `${askedOfServer} ${operators}`.trimEnd());
  return { connectionString: address.toString(), keepAlive: true, keepAliveInitialDelayMillis: 10_000 };
}
