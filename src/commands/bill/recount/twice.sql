-- Lines that charge a time which another one of the same resource and service charges already.
WITH effective AS (
    {effective}
)
SELECT id, service, resource, to_unixtime(begin)
FROM (
    SELECT id, service, resource, begin,
           max("end") OVER (PARTITION BY service, resource ORDER BY begin, id
                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS charged_until
    FROM effective
) lines
WHERE begin < charged_until
ORDER BY 2, 3, 4, 1
