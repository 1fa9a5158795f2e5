SELECT id, service, resource, begin, "end", quantity, groupby, metadata,
       to_unixtime(begin) - to_unixtime(begin) % {period} AS used_in
FROM rated_lines l
WHERE scope = {scope} AND begin >= {from} AND begin < {until} AND resource IN ({resources})
  AND kind = 'Usage' AND (rule = {rule} OR starts_with(rule, {rule_with_expression}))
  AND NOT reverses
  AND NOT EXISTS (
      SELECT 1 FROM rated_lines r
      WHERE r.scope = {scope} AND r.begin >= {from} AND r.begin < {until} AND r.reverses AND r.corrects = l.id)
