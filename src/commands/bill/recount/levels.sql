-- What lines rest on whose quantity is a level that was measured: for each line the sum of each value times the microseconds for
-- which it held. A value holds until the next point; the first one ever also before it.
WITH
points AS (
    SELECT original_resource_id AS resource, CAST(timestamp AS BIGINT) AS at, value
    FROM measures
    WHERE meter = {metric} AND resource_type = {type} AND original_resource_id IN ({resources})
      AND timestamp >= {from} AND timestamp < {until} AND NOT isnan(value) AND abs(value) < 1e24
    UNION ALL
    -- The one before may be from any time; it holds when this time begins.
    SELECT original_resource_id, {from_second} * 1000000 - 1, last_value(value ORDER BY timestamp)
    FROM measures
    WHERE meter = {metric} AND resource_type = {type} AND original_resource_id IN ({resources})
      AND timestamp < {from} AND NOT isnan(value) AND abs(value) < 1e24
    GROUP BY original_resource_id
),
held AS (
    SELECT resource, at, CAST(CAST(value AS VARCHAR) AS DECIMAL(38, 12)) AS value,
           CASE WHEN lag(at) OVER time IS NULL OR at < {from_second} * 1000000 THEN {from_second} * 1000000 ELSE at END AS since,
           coalesce(lead(at) OVER time, {until_second} * 1000000) AS next
    FROM points
    WINDOW time AS (PARTITION BY resource ORDER BY at)
),
pieces AS (
    SELECT resource, at, value, since, next,
           unnest(range(since / 1000000 - since / 1000000 % {period}, (next + 999999) / 1000000, {period})) AS used_in
    FROM held
    WHERE since < next
),
effective AS (
    {effective}
)
SELECT e.id, e.resource, e.used_in, to_unixtime(e.begin), to_unixtime(e."end"), e.quantity,
       sum(value * (least(next, CAST(e."end" AS BIGINT)) - greatest(since, CAST(e.begin AS BIGINT)))) AS amount
FROM effective e
LEFT JOIN pieces p ON p.resource = e.resource AND p.used_in = e.used_in AND p.at < CAST(e."end" AS BIGINT)
     AND least(next, CAST(e."end" AS BIGINT)) > greatest(since, CAST(e.begin AS BIGINT))
GROUP BY e.id, e.resource, e.used_in, e.begin, e."end", e.quantity
ORDER BY e.resource, e.begin, e.id
