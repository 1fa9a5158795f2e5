-- Lines of the hashmap whose cost is not their quantity times the price of one. The three numbers are rounded to ten digits,
-- each for itself: that may make one step of the last digit for the cost, and as many for the product as either factor is large.
-- Where the quantity is nothing there is no price of one.
SELECT id, scope, service, quantity, unit_price, cost
FROM rated_lines
WHERE kind = 'Usage' AND starts_with(rule, 'hashmap/') AND quantity <> 0
  AND abs(cost - quantity * unit_price)
      > (1 + abs(quantity) + abs(unit_price)) * CAST('0.0000000001' AS DECIMAL(38, 10))
ORDER BY 2, 3, 1
