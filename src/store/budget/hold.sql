-- Locks the budgets $1 (null: all) until the end of the transaction, and says where they stand.
select name as "name!", scope as "scope!", scope_name as "scope_name!", period as "period!",
       limit_nanos as "limit_nanos!", (soft * 1000000)::integer as soft, then_route, unpriced as "unpriced!", ends_at,
       spent_nanos as "spent_nanos!", uncertain_nanos as "uncertain_nanos!", reserved_nanos as "reserved_nanos!",
       least_nanos, least_is_old as "least_is_old!", crossed as "crossed!", version as "version!"
  from sluice.hold_budgets($1::text[], clock_timestamp())
