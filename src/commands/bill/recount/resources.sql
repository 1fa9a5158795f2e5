-- Everything that a project was ever charged for, owned, or was told of, and what it is: the service of a line, or the type that
-- the index or an event tells.
SELECT resource, 'service' AS what, service AS name
FROM rated_lines
WHERE scope = {scope} AND kind = 'Usage' AND starts_with(rule, 'hashmap/')
UNION
SELECT resource_id, 'type',
       CASE WHEN event_type LIKE 'compute.instance.%' THEN 'instance'
            WHEN split_part(event_type, '.', 1) IN ('volume', 'snapshot', 'backup') THEN 'volume'
            WHEN split_part(event_type, '.', 1) = 'image' THEN 'image'
            WHEN split_part(event_type, '.', 1) = 'floatingip' THEN 'network' END
FROM events
WHERE project_id = {scope} AND resource_id IS NOT NULL
UNION
SELECT original_resource_id, 'type', resource_type
FROM revisions
WHERE project_id = {scope}
   OR original_resource_id IN (SELECT resource_id FROM events WHERE project_id = {scope} AND resource_id IS NOT NULL)
ORDER BY 1, 2, 3
