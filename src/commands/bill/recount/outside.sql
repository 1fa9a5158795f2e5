-- How many lines of a project there are to be counted again, and how many are not for it, by why.
WITH lines AS (
    SELECT l.*, r.corrects IS NOT NULL AS is_taken_back
    FROM rated_lines l
    LEFT JOIN (SELECT DISTINCT corrects FROM rated_lines WHERE scope = {scope} AND reverses) r ON r.corrects = l.id
    WHERE scope = {scope}
)
SELECT CASE WHEN reverses OR is_taken_back THEN 'taken back, or taking back'
            WHEN kind <> 'Usage' THEN 'of a whole bill: ' || kind
            WHEN NOT starts_with(rule, 'hashmap/') THEN 'brought in from outside'
            WHEN NOT ({is_charged}) THEN 'of what metrics.yml does not charge any more'
            WHEN begin >= {until} THEN 'later than the project is rated'
            ELSE '' END AS why, count(*)
FROM lines
GROUP BY why
ORDER BY 1
