-- What every project was charged in each month, by service and currency.
SELECT to_char(period, '%Y-%m') AS month, scope, service, currency, sum(cost)
FROM rated_lines
GROUP BY month, scope, service, currency
ORDER BY 1, 2, 3, 4
