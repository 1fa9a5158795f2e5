-- What every project was charged in each month, by service and currency. Months are read from the text of a time: functions of
-- times count in nanoseconds, and lines of other centuries would end the query.
SELECT substr(CAST(period AS VARCHAR), 1, 7) AS month, scope, service, currency, sum(cost)
FROM rated_lines
GROUP BY month, scope, service, currency
ORDER BY 1, 2, 3, 4
