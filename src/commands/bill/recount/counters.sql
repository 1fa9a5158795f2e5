-- What lines rest on whose quantity is the increase of a counter: for each line the sum of what each of its points is above the
-- one before. A counter that is below begins at zero again. The first point ever counts from zero only where an event tells
-- that the resource began.
WITH
points AS (
    SELECT original_resource_id AS resource, CAST(timestamp AS BIGINT) AS at, value
    FROM measures
    WHERE meter = {metric} AND resource_type = {type} AND original_resource_id IN ({resources})
      AND timestamp >= {from} AND timestamp < {until} AND NOT isnan(value) AND abs(value) < 1e24
    UNION ALL
    SELECT original_resource_id, {from_second} * 1000000 - 1, last_value(value ORDER BY timestamp)
    FROM measures
    WHERE meter = {metric} AND resource_type = {type} AND original_resource_id IN ({resources})
      AND timestamp < {from} AND NOT isnan(value) AND abs(value) < 1e24
    GROUP BY original_resource_id
),
read AS (
    SELECT resource, at, CAST(CAST(value AS VARCHAR) AS DECIMAL(38, 12)) AS value
    FROM points
),
ordered AS (
    SELECT resource, at, value, lag(value) OVER time AS before
    FROM read
    WINDOW time AS (PARTITION BY resource ORDER BY at)
),
begun AS (
    SELECT DISTINCT resource_id AS resource
    FROM events
    WHERE resource_id IN ({resources})
      AND (TRY_CAST(traits['launched_at'] AS TIMESTAMP) IS NOT NULL OR TRY_CAST(traits['created_at'] AS TIMESTAMP) IS NOT NULL
           OR event_type LIKE '%create.end' OR event_type IN ('image.create', 'image.upload'))
),
grown AS (
    SELECT o.resource, at, at / 1000000 - at / 1000000 % {period} AS used_in,
           CASE WHEN before IS NULL AND b.resource IS NULL THEN 0
                WHEN before IS NULL OR value < before THEN value
                ELSE value - before END AS growth
    FROM ordered o
    LEFT JOIN begun b ON b.resource = o.resource
    WHERE at >= {from_second} * 1000000
),
effective AS (
    {effective}
)
SELECT e.id, e.resource, e.used_in, to_unixtime(e.begin), to_unixtime(e."end"), e.quantity, sum(growth) AS amount
FROM effective e
LEFT JOIN grown g ON g.resource = e.resource AND g.used_in = e.used_in
     AND g.at >= CAST(e.begin AS BIGINT) AND g.at < CAST(e."end" AS BIGINT)
GROUP BY e.id, e.resource, e.used_in, e.begin, e."end", e.quantity
ORDER BY e.resource, e.begin, e.id
