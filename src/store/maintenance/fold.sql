-- Adds rows of the tally to the sums of their hours, at most $1 of them. Says how many rows they were, how many sums
-- they came to, and about how many rows are left.
with old as (
    delete from sluice.tally
     where ctid = any (array(select ctid from sluice.tally limit $1 for update skip locked))
    returning *
), taken as (
    -- A name that is too long for an index keeps its beginning, and its hash so that it stays one of its own.
    select o.*, n.route as route_name, n.project as project_name, n.batch as batch_name
      from old o cross join lateral (
           select case when octet_length(o.route) <= 500 then o.route
                       else left(o.route, 100) || '…' || md5(o.route) end,
                  case when octet_length(o.project) <= 500 then o.project
                       else left(o.project, 100) || '…' || md5(o.project) end,
                  case when octet_length(o.batch) <= 500 then o.batch
                       else left(o.batch, 100) || '…' || md5(o.batch) end
           ) n(route, project, batch)
), kept as (
    insert into sluice.tally_hour as h
         select hour, route_name, project_name, batch_name, provider, model, class, detail, sum(enqueued),
                sum(succeeded), sum(failed), sum(cancelled), sum(attempts), sum(fallbacks),
                sluice.capped(sum(input_tokens)), sluice.capped(sum(cached_tokens)), sluice.capped(sum(output_tokens)),
                sluice.capped(sum(cost_nanos)), sluice.capped(sum(waste_nanos)), sluice.capped(sum(uncertain_nanos)),
                sum(unpriced), sluice.capped(sum(total_ms))
           from taken group by 1, 2, 3, 4, 5, 6, 7, 8
    on conflict (hour, route, project, batch, provider, model, class, detail) do update set
         enqueued = h.enqueued + excluded.enqueued,
         succeeded = h.succeeded + excluded.succeeded,
         failed = h.failed + excluded.failed,
         cancelled = h.cancelled + excluded.cancelled,
         attempts = h.attempts + excluded.attempts,
         fallbacks = h.fallbacks + excluded.fallbacks,
         input_tokens = sluice.capped(h.input_tokens::numeric + excluded.input_tokens),
         cached_tokens = sluice.capped(h.cached_tokens::numeric + excluded.cached_tokens),
         output_tokens = sluice.capped(h.output_tokens::numeric + excluded.output_tokens),
         cost_nanos = sluice.capped(h.cost_nanos::numeric + excluded.cost_nanos),
         waste_nanos = sluice.capped(h.waste_nanos::numeric + excluded.waste_nanos),
         uncertain_nanos = sluice.capped(h.uncertain_nanos::numeric + excluded.uncertain_nanos),
         unpriced = h.unpriced + excluded.unpriced,
         total_ms = sluice.capped(h.total_ms::numeric + excluded.total_ms)
    returning 1
)
select (select count(*) from old) as "rows!", (select count(*) from kept) as "sums!",
       greatest(coalesce((select max(id) from sluice.tally) - (select max(id) from old), 0), 0) as "left!"
