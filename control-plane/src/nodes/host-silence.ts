import { sql, type Sql } from "../platform/sql.ts";

/** Silence of a host before its pods may become another's: longer than a session is without a mark or a host without a beat. */
const silenceSeconds = 15;

/**
 * Of node_status `s`: the watch has seen the host go and nothing was heard of it lately. The state alone would not do: it is
 * a second old, or older while nobody watches. Whether a session is noted as connected says nothing: a gateway that was
 * killed leaves it so.
 */
export const isSilent: Sql = sql`(s.state IN ('offline', 'lost', 'removed')
  AND coalesce(s.session_seen_at < now() - ${silenceSeconds} * interval '1 s', true)
  AND coalesce(s.last_heartbeat_at < now() - ${silenceSeconds} * interval '1 s', true))`;

/**
 * Of node_status `s` and the open evacuation `d` of the host: anything was heard of it since somebody vouched that it is cut
 * off. It is noted as lost then, and comes out of that only by a sign of life; silence after that proves nothing.
 */
export const wasHeardSinceGivenUp: Sql = sql`(s.state NOT IN ('lost', 'removed')
  OR coalesce(s.session_seen_at >= d.started_at, false) OR coalesce(s.last_heartbeat_at >= d.started_at, false))`;
