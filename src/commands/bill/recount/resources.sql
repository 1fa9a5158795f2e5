-- Everything that a project was ever charged for, owned, or was told of.
SELECT resource FROM rated_lines WHERE scope = {scope} AND kind = 'Usage' AND starts_with(rule, 'hashmap/')
UNION
SELECT resource_id FROM events WHERE project_id = {scope} AND resource_id IS NOT NULL
UNION
SELECT original_resource_id FROM revisions WHERE project_id = {scope}
ORDER BY 1
