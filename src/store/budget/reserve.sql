-- Notes what was reserved for calls that are open now, and what was asked of the budgets, which are locked.
-- For each call $1 its job, $2 the fence, $3 its number, $4 the worst case; then for each call and budget $5 the place
-- of the call in these lists, from 1, and $6 the budget; for each budget that was asked $7 its name, $8 the smallest
-- worst case that was asked for lately, $9 whether that was asked for now, $10 whether it has refused a call.
-- Says which budgets have refused a call for the first time in their window.
with c as (
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[])
             with ordinality c(job_id, fence, number, nanos, n)
), covered as (
    select * from unnest($5::bigint[], $6::text[]) k(n, budget)
), noted as (
    insert into sluice.reservation as r (job_id, fence, number, budgets, nanos)
    select c.job_id, c.fence, c.number, (select array_agg(k.budget) from covered k where k.n = c.n), c.nanos from c
    -- A call of that number was opened before and not made; what it had is given back below.
    on conflict on constraint reservation_pkey
        do update set budgets = excluded.budgets, nanos = excluded.nanos, reserved_at = now()
), before as (
    select r.budgets, r.nanos
      from c join sluice.reservation r
           on r.job_id = any (array[c.job_id]) and r.fence = c.fence and r.number = c.number
), again as (
    insert into sluice.budget_entry (budget, reserved_nanos)
    select u.name, -sum(b.nanos) from before b cross join lateral unnest(b.budgets) u(name) group by u.name
), asked as (
    select * from unnest($7::text[], $8::bigint[], $9::boolean[], $10::boolean[]) a(budget, least, is_new, is_full)
), sums as (
    select k.budget, sum(c.nanos) as nanos from c join covered k on k.n = c.n group by k.budget
), kept as (
    update sluice.budget b
       set reserved_nanos = sluice.capped(b.reserved_nanos + coalesce(s.nanos, 0)), least_nanos = a.least,
           least_at = case when a.is_new then clock_timestamp() else b.least_at end
      from asked a left join sums s on s.budget = a.budget
     where b.name = a.budget
    returning b.name, b.window_start, a.is_full
), full_now as (
    insert into sluice.budget_window as w (budget, starts_at, full_at)
    select k.name, k.window_start, clock_timestamp() from kept k where k.is_full
    on conflict on constraint budget_window_pkey do update set full_at = excluded.full_at where w.full_at is null
    returning w.budget
)
select budget as "budget!" from full_now
