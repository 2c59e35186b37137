-- Gives attempts a new cost, where they still say what was read of them, and books the difference in their hours.
-- Returns the job of each attempt that was changed.
-- $1 job, $2 fence, $3 number, $4 and $5 its cost and computed cost as read, $6 and $7 as they are to be, $8 the origin
-- of the cost, $9 the price, $10 whether the provider's figure differs, $11 the tokens written for an hour, $12 what it
-- may have cost besides, as read: a call whose cost was unknown, and is not any more, has no such amount; $13 and $14
-- what the prompt cache saved, as read and as it is to be
with w as (
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[],
                         $7::bigint[], $8::text[], $9::text[], $10::boolean[], $11::bigint[], $12::bigint[],
                         $13::bigint[], $14::bigint[])
      as w(job_id, fence, number, was_cost, was_computed, cost, computed, source, price, differs, for_an_hour,
           was_uncertain, was_saved, saved)
), changed as (
    update sluice.attempt a
       set cost_nanos = w.cost, computed_cost_nanos = w.computed, cost_source = w.source, price = w.price::jsonb,
           cost_differs = w.differs, cache_write_1h_tokens = w.for_an_hour,
           cache_saved_nanos = w.saved, repriced_at = now(),
           uncertain_nanos = case when w.was_cost is null and w.cost is not null then 0 else a.uncertain_nanos end,
           repriced_from = sluice.repriced_from(a.repriced_from, a.cost_nanos, a.computed_cost_nanos, a.cost_source,
                                                a.price, now())
      from w
     where a.job_id = any (array[w.job_id]) and a.fence = w.fence and a.number = w.number and not a.placeholder
       and a.cost_nanos is not distinct from w.was_cost and a.computed_cost_nanos is not distinct from w.was_computed
       and a.uncertain_nanos = w.was_uncertain and a.cache_saved_nanos is not distinct from w.was_saved
    -- An answer that was taken although its rung was not sure enough stays in the sums as it was booked: rejected.
    returning a.job_id, a.ended_at, a.provider, a.model,
              case when a.class is null and a.detail = 'low_confidence' then 'soft_failure' else a.class end as class,
              a.detail, a.code, a.http_status, a.reask_of,
              a.instead_of, a.instead_why, a.instead_nanos, w.was_cost, w.cost,
              a.uncertain_nanos - w.was_uncertain as more_uncertain, w.was_saved, w.saved,
              a.cache_read_tokens + a.cache_write_tokens as cached
), told as (
    insert into sluice.tally (hour, route, project, batch, login, provider, model, class, detail, code, instead_of,
                              instead_why, cost_nanos, waste_nanos, uncertain_nanos, unpriced, reask_cost_nanos,
                              reask_unpriced, extra_nanos, extra_unknown, cache_priced_tokens, cache_saved_nanos)
         select date_trunc('hour', c.ended_at), coalesce(j.route, ''), coalesce(j.project, ''), coalesce(j.batch, ''),
                coalesce(j.enqueued_by, ''), c.provider, c.model, coalesce(c.class, ''), coalesce(c.detail, ''),
                sluice.failure_code(c.class, c.code, c.http_status),
                case when c.class is null then coalesce(c.instead_of, '') else '' end,
                case when c.class is null then coalesce(c.instead_why, '') else '' end,
                sluice.capped(sum(d.more)), sluice.capped(coalesce(sum(d.more) filter (where c.class is not null), 0)),
                sluice.capped(sum(c.more_uncertain)), sum(d.unknown),
                sluice.capped(coalesce(sum(d.more) filter (where c.reask_of is not null), 0)),
                coalesce(sum(d.unknown) filter (where c.reask_of is not null), 0),
                -- Beside the first choice counts what is known of both. What had no cost has one now, or has none.
                sluice.capped(coalesce(sum(d.more - d.found * c.instead_nanos) filter (where c.class is null), 0)),
                coalesce(-sum(d.found) filter (where c.class is null and c.instead_nanos is not null), 0),
                sluice.capped(sum(c.cached * ((c.saved is not null)::integer - (c.was_saved is not null)::integer))),
                sluice.capped(sum(coalesce(c.saved, 0)::numeric - coalesce(c.was_saved, 0)))
           -- The ledger keeps calls of jobs that a restore of the database has lost.
           from changed c left join sluice.job j on j.id = any (array[c.job_id]) cross join lateral (
                select coalesce(c.cost, 0)::numeric - coalesce(c.was_cost, 0) as more,
                       (c.cost is null)::integer - (c.was_cost is null)::integer as unknown,
                       (c.was_cost is null)::integer - (c.cost is null)::integer as found) d
          where c.cost is distinct from c.was_cost or c.saved is distinct from c.was_saved
          group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
)
select job_id as "job_id!" from changed
