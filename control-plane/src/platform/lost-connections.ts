/**
 * Of every connection to the database: both ends ask whether the other is still there. Where nobody asks, a machine that lost
 * its power leaves its transactions' locks behind for two hours, and whoever waits for the answer of a server that is gone
 * waits for ever. The server notices within half a minute, also while an answer is on its way; this end within twelve.
 */
export const noticesLoss = {
  keepAlive: true,
  keepAliveInitialDelayMillis: 10_000,
  options: "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=25000",
} as const;
