-- For how many seconds of each period resources were there, and what they were like, as their events tell it; beside it what
-- the ledger charges. One row for each resource, period of use and set of facts.
--
-- A resource lives from the earliest `launched_at` that any event tells (else `created_at`, else the event of its creation)
-- until the earliest `deleted_at` (else the event of its deletion, else what the index says). An event says what it is like
-- from its own second on, until the next one; the first also before. What polling saw is only asked whether it agrees: where it
-- does not, `doubt` says so, and the row is not for this count. A fact that no event of a resource tells is not compared.
WITH
told AS (
    SELECT resource_id AS resource, generated_at, message_id, event_type,
           to_unixtime(generated_at) AS at,
           event_type LIKE '%.start' OR event_type LIKE '%.error' AS is_preliminary,
           to_unixtime(TRY_CAST(traits['launched_at'] AS TIMESTAMP)) AS launched,
           to_unixtime(TRY_CAST(traits['created_at'] AS TIMESTAMP)) AS created,
           to_unixtime(TRY_CAST(traits['deleted_at'] AS TIMESTAMP)) AS deleted,
           nullif(coalesce(nullif(traits['project_id'], ''), traits['tenant_id']), '') AS project,
           nullif(traits['user_id'], '') AS owner,
           TRY_CAST({level} AS DECIMAL(20, 6)) AS level{traits}
    FROM events
    WHERE resource_id IN ({resources})
),
lives AS (
    SELECT resource,
           min(CASE WHEN event_type LIKE 'compute.instance.%' THEN 'instance'
                    WHEN split_part(event_type, '.', 1) IN ('volume', 'snapshot', 'backup') THEN 'volume'
                    WHEN split_part(event_type, '.', 1) = 'image' THEN 'image'
                    WHEN split_part(event_type, '.', 1) = 'floatingip' THEN 'network' END) AS type,
           coalesce(
               min(launched),
               min(created),
               min(at) FILTER (WHERE event_type LIKE '%create.end' OR event_type IN ('image.create', 'image.upload'))
           ) AS born,
           coalesce(
               min(deleted),
               min(at) FILTER (WHERE event_type LIKE '%delete.end' OR event_type = 'image.delete'),
               min(at) FILTER (WHERE event_type LIKE '%delete.start')
           ) AS died,
           coalesce(bool_or(level IS NOT NULL) FILTER (WHERE NOT is_preliminary), FALSE) AS tells_level,
           coalesce(bool_or(owner IS NOT NULL) FILTER (WHERE NOT is_preliminary), FALSE) AS tells_owner{tells}
    FROM told
    GROUP BY resource
),
known AS (
    SELECT original_resource_id AS resource, min(resource_type) AS type, count(DISTINCT resource_id) AS resources,
           to_unixtime(max(ended_at) FILTER (WHERE revision_end IS NULL)) AS ended,
           bool_or({polled_level} IS NOT NULL) AS tells_level
    FROM revisions
    WHERE original_resource_id IN ({resources})
    GROUP BY original_resource_id
),
so_far AS (
    SELECT t.resource, generated_at, message_id, greatest(at, born) AS since,
           last_value(project) IGNORE NULLS OVER before AS project,
           last_value(owner) IGNORE NULLS OVER before AS owner,
           last_value(level) IGNORE NULLS OVER before AS level{so_far}
    FROM told t
    JOIN lives v ON v.resource = t.resource
    WHERE NOT is_preliminary AND born IS NOT NULL
    WINDOW before AS (PARTITION BY t.resource ORDER BY generated_at, message_id ROWS UNBOUNDED PRECEDING)
),
states AS (
    SELECT s.*, row_number() OVER life AS number, lead(since) OVER life AS next
    FROM so_far s
    WINDOW life AS (PARTITION BY resource ORDER BY generated_at, message_id)
),
doubted AS (
    SELECT resource, 'an event does not say whose it is' AS doubt
    FROM states JOIN lives USING (resource)
    WHERE project IS NULL OR (owner IS NULL AND tells_owner) OR (level IS NULL AND tells_level)
    UNION ALL
    SELECT r.original_resource_id, 'polling knew it before its first event'
    FROM revisions r
    JOIN states s ON s.resource = r.original_resource_id AND number = 1
    JOIN lives v ON v.resource = s.resource
    WHERE r.original_resource_id IN ({resources}) AND to_unixtime(revision_start) < since AND born < since
    UNION ALL
    SELECT r.original_resource_id, 'polling contradicts its events'
    FROM revisions r
    JOIN states s ON s.resource = r.original_resource_id
    WHERE r.original_resource_id IN ({resources})
      AND to_unixtime(revision_start) >= since AND (next IS NULL OR to_unixtime(revision_start) < next)
      AND (r.project_id <> s.project OR r.user_id <> s.owner{contradicts})
),
stretches AS (
    SELECT s.resource, coalesce(level, 0) AS level, {facts_of_state} AS facts,
           greatest(CASE WHEN number = 1 THEN born ELSE since END, {from_second}) AS first,
           least(next, coalesce(died, ended), {until_second}) AS last
    FROM states s
    JOIN lives v ON v.resource = s.resource
    LEFT JOIN known k ON k.resource = s.resource
    WHERE s.project = {scope} AND coalesce(k.type, v.type) = {type}
),
pieces AS (
    SELECT resource, facts, level, first, last, unnest(range(first - first % {period}, last, {period})) AS used_in
    FROM stretches
    WHERE first < last
),
counted AS (
    SELECT resource, used_in, facts,
           sum(least(last, used_in + {period}) - greatest(first, used_in)) AS seconds,
           sum((least(last, used_in + {period}) - greatest(first, used_in)) * level) AS amount
    FROM pieces
    GROUP BY resource, used_in, facts
),
effective AS (
    {effective}
),
charged AS (
    SELECT e.resource, used_in, {facts_of_line} AS facts,
           sum(to_unixtime("end") - to_unixtime(begin)) AS seconds, sum(quantity) AS quantity, count(*) AS lines
    FROM effective e
    LEFT JOIN lives v ON v.resource = e.resource
    GROUP BY e.resource, used_in, facts
),
beside AS (
    SELECT coalesce(c.resource, l.resource) AS resource, coalesce(c.used_in, l.used_in) AS used_in,
           coalesce(c.facts, l.facts) AS facts, c.seconds AS seconds, c.amount AS amount,
           l.seconds AS charged_seconds, l.quantity AS quantity, l.lines AS lines
    FROM counted c
    FULL OUTER JOIN charged l ON l.resource = c.resource AND l.used_in = c.used_in AND l.facts = c.facts
)
SELECT b.resource, used_in, facts, coalesce(seconds, 0), coalesce(amount, 0), coalesce(charged_seconds, 0),
       coalesce(quantity, 0), coalesce(lines, 0),
       CASE WHEN v.resource IS NULL THEN 'no event tells of it'
            WHEN v.born IS NULL THEN 'no event tells when it began'
            WHEN k.resources > 1 THEN 'several resources have its name'
            ELSE coalesce(d.doubt, '') END AS doubt,
       coalesce(v.tells_level, FALSE) OR coalesce(k.tells_level, FALSE) AS tells_level
FROM beside b
LEFT JOIN lives v ON v.resource = b.resource
LEFT JOIN known k ON k.resource = b.resource
LEFT JOIN (SELECT resource, min(doubt) AS doubt FROM doubted GROUP BY resource) d ON d.resource = b.resource
-- What only events tell of is looked for by the rating in their own day, and charged there.
WHERE k.resource IS NOT NULL OR lines IS NOT NULL
ORDER BY 1, 2, 3
