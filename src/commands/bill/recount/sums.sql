-- What every project was charged in each month, by service.
SELECT to_char(period, '%Y-%m') AS month, scope, service, sum(cost)
FROM rated_lines
GROUP BY month, scope, service
ORDER BY 1, 2, 3
