-- Adds rows of the tally to the sums of their hours, at most $1 of them: to those by batch, and to those of all batches
-- together, of the hour, of the day, and of the hour without what the jobs are. Says how many rows they were, how many
-- sums by batch they came to, and about how many rows are left.
with old as (
    delete from sluice.tally
     where ctid = any (array(select ctid from sluice.tally limit $1 for update skip locked))
    returning *
), said as (
    select provider, model, class, detail, code, max(array[lpad(id::text, 20, '0'), sample]) as last
      from old where class <> '' and provider <> '' group by 1, 2, 3, 4, 5
), met as (
    -- What others send is not bounded: of a class of a target twenty codes are told apart.
    select s.*, k.code is not null as is_known,
           row_number() over (partition by s.provider, s.model, s.class, s.detail
                              order by k.code is null, s.code)
             + (select count(*) from sluice.failure_sample f
                 where f.provider = s.provider and f.model = s.model and f.class = s.class and f.detail = s.detail)
             - count(k.code) over (partition by s.provider, s.model, s.class, s.detail) as place
      from said s left join sluice.failure_sample k using (provider, model, class, detail, code)
), heard as (
    insert into sluice.failure_sample as f (provider, model, class, detail, code, message)
         select provider, model, class, detail, code, last[2] from met where is_known or place <= 20
    on conflict (provider, model, class, detail, code) do update
        set message = case when excluded.message <> '' then excluded.message else f.message end, seen_at = now()
), beyond as (
    select provider, model, class, detail, code from met where code <> '' and not is_known and place > 20
), taken as (
    -- A name that is too long for an index keeps its beginning, and its hash so that it stays one of its own.
    select o.*, n.route as route_name, n.project as project_name, n.batch as batch_name,
           -- `in` is looked up by hash; a join of the two would go through all of `beyond` for each row.
           case when (o.provider, o.model, o.class, o.detail, o.code) in (select b.* from beyond b) then '(other)'
                else o.code end as code_name
      from old o cross join lateral (
           select case when octet_length(o.route) <= 500 then o.route
                       else left(o.route, 100) || '…' || md5(o.route) end,
                  case when octet_length(o.project) <= 500 then o.project
                       else left(o.project, 100) || '…' || md5(o.project) end,
                  case when octet_length(o.batch) <= 500 then o.batch
                       else left(o.batch, 100) || '…' || md5(o.batch) end
           ) n(route, project, batch)
), sums as materialized (
    select hour, route_name as route, project_name as project, batch_name as batch, login, provider, model, class,
           detail, code_name as code, instead_of, instead_why, sum(enqueued) as enqueued,
           sum(succeeded) as succeeded, sum(failed) as failed, sum(cancelled) as cancelled, sum(attempts) as attempts,
           sum(fallbacks) as fallbacks, sum(input_tokens) as input_tokens, sum(cached_tokens) as cached_tokens,
           sum(output_tokens) as output_tokens, sum(cost_nanos) as cost_nanos, sum(waste_nanos) as waste_nanos,
           sum(uncertain_nanos) as uncertain_nanos, sum(unpriced) as unpriced, sum(total_ms) as total_ms,
           sum(repaired) as repaired, sum(reasks) as reasks, sum(reask_cost_nanos) as reask_cost_nanos,
           sum(reask_unpriced) as reask_unpriced, sum(extra_nanos) as extra_nanos, sum(extra_unknown) as extra_unknown,
           sum(cache_write_tokens) as cache_write_tokens, sum(cache_priced_tokens) as cache_priced_tokens,
           sum(cache_saved_nanos) as cache_saved_nanos,
           count(*) as n, coalesce(sum(attempts) filter (where instead_of <> ''), 0) as detours,
           coalesce(sum(cost_nanos) filter (where instead_of <> ''), 0) as detour_cost_nanos,
           string_agg(array_to_string(latency, ','), ',') filter (where latency <> '{}') as latency,
           string_agg(array_to_string(first_byte, ','), ',') filter (where first_byte <> '{}') as first_byte
      from taken group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
     -- Rows that go into the indexes next to each other take a fifth less time.
     order by 1, 2, 3, 4
), kept as (
    insert into sluice.tally_hour as h (hour, route, project, batch, login, provider, model, class, detail, code,
                instead_of, instead_why, enqueued, succeeded, failed, cancelled, attempts, fallbacks, input_tokens,
                cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms, repaired,
                reasks, reask_cost_nanos, reask_unpriced, extra_nanos, extra_unknown, cache_write_tokens,
                cache_priced_tokens, cache_saved_nanos, latency, first_byte)
         select hour, route, project, batch, login, provider, model, class, detail, code, instead_of, instead_why,
                enqueued, succeeded, failed, cancelled, attempts, fallbacks, sluice.capped(input_tokens),
                sluice.capped(cached_tokens), sluice.capped(output_tokens), sluice.capped(cost_nanos),
                sluice.capped(waste_nanos), sluice.capped(uncertain_nanos), unpriced, sluice.capped(total_ms),
                repaired, reasks, sluice.capped(reask_cost_nanos), reask_unpriced, sluice.capped(extra_nanos),
                extra_unknown, sluice.capped(cache_write_tokens), sluice.capped(cache_priced_tokens),
                sluice.capped(cache_saved_nanos),
                -- Adding up takes longer than all the rest, and one row is its own sum.
                case when latency is null then '{}' when n = 1 then string_to_array(latency, ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(latency, ',')::bigint[]) end,
                case when first_byte is null then '{}' when n = 1 then string_to_array(first_byte, ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(first_byte, ',')::bigint[]) end
           from sums
    on conflict (hour, route, project, batch, login, provider, model, class, detail, code, instead_of, instead_why)
    do update set
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
         total_ms = sluice.capped(h.total_ms::numeric + excluded.total_ms),
         repaired = h.repaired + excluded.repaired,
         reasks = h.reasks + excluded.reasks,
         reask_cost_nanos = sluice.capped(h.reask_cost_nanos::numeric + excluded.reask_cost_nanos),
         reask_unpriced = h.reask_unpriced + excluded.reask_unpriced,
         extra_nanos = sluice.capped(h.extra_nanos::numeric + excluded.extra_nanos),
         extra_unknown = h.extra_unknown + excluded.extra_unknown,
         cache_write_tokens = sluice.capped(h.cache_write_tokens::numeric + excluded.cache_write_tokens),
         cache_priced_tokens = sluice.capped(h.cache_priced_tokens::numeric + excluded.cache_priced_tokens),
         cache_saved_nanos = sluice.capped(h.cache_saved_nanos::numeric + excluded.cache_saved_nanos),
         latency = case when excluded.latency = '{}' then h.latency when h.latency = '{}' then excluded.latency
                        else sluice.histogram_sum(h.latency || excluded.latency) end,
         first_byte = case when excluded.first_byte = '{}' then h.first_byte
                           when h.first_byte = '{}' then excluded.first_byte
                           else sluice.histogram_sum(h.first_byte || excluded.first_byte) end
    returning 1
), all_batches as (
    insert into sluice.tally_hour_all as h (hour, route, project, login, provider, model, class, detail, code,
                instead_of, instead_why, enqueued, succeeded, failed, cancelled, attempts, fallbacks, input_tokens,
                cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms, repaired,
                reasks, reask_cost_nanos, reask_unpriced, extra_nanos, extra_unknown, cache_write_tokens,
                cache_priced_tokens, cache_saved_nanos, latency, first_byte)
         select hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why,
                sum(enqueued), sum(succeeded), sum(failed), sum(cancelled), sum(attempts), sum(fallbacks),
                sluice.capped(sum(input_tokens)), sluice.capped(sum(cached_tokens)), sluice.capped(sum(output_tokens)),
                sluice.capped(sum(cost_nanos)), sluice.capped(sum(waste_nanos)), sluice.capped(sum(uncertain_nanos)),
                sum(unpriced), sluice.capped(sum(total_ms)), sum(repaired), sum(reasks),
                sluice.capped(sum(reask_cost_nanos)), sum(reask_unpriced), sluice.capped(sum(extra_nanos)),
                sum(extra_unknown), sluice.capped(sum(cache_write_tokens)), sluice.capped(sum(cache_priced_tokens)),
                sluice.capped(sum(cache_saved_nanos)),
                case when count(latency) = 0 then '{}' when sum(n) = 1 then string_to_array(min(latency), ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(string_agg(latency, ','), ',')::bigint[]) end,
                case when count(first_byte) = 0 then '{}'
                     when sum(n) = 1 then string_to_array(min(first_byte), ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(string_agg(first_byte, ','), ',')::bigint[]) end
           from sums group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    on conflict (hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why)
    do update set
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
         total_ms = sluice.capped(h.total_ms::numeric + excluded.total_ms),
         repaired = h.repaired + excluded.repaired,
         reasks = h.reasks + excluded.reasks,
         reask_cost_nanos = sluice.capped(h.reask_cost_nanos::numeric + excluded.reask_cost_nanos),
         reask_unpriced = h.reask_unpriced + excluded.reask_unpriced,
         extra_nanos = sluice.capped(h.extra_nanos::numeric + excluded.extra_nanos),
         extra_unknown = h.extra_unknown + excluded.extra_unknown,
         cache_write_tokens = sluice.capped(h.cache_write_tokens::numeric + excluded.cache_write_tokens),
         cache_priced_tokens = sluice.capped(h.cache_priced_tokens::numeric + excluded.cache_priced_tokens),
         cache_saved_nanos = sluice.capped(h.cache_saved_nanos::numeric + excluded.cache_saved_nanos),
         latency = case when excluded.latency = '{}' then h.latency when h.latency = '{}' then excluded.latency
                        else sluice.histogram_sum(h.latency || excluded.latency) end,
         first_byte = case when excluded.first_byte = '{}' then h.first_byte
                           when h.first_byte = '{}' then excluded.first_byte
                           else sluice.histogram_sum(h.first_byte || excluded.first_byte) end
), by_day as (
    insert into sluice.tally_day_all as h (hour, route, project, login, provider, model, class, detail, code,
                instead_of, instead_why, enqueued, succeeded, failed, cancelled, attempts, fallbacks, input_tokens,
                cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms, repaired,
                reasks, reask_cost_nanos, reask_unpriced, extra_nanos, extra_unknown, cache_write_tokens,
                cache_priced_tokens, cache_saved_nanos, latency, first_byte)
         select date_trunc('day', hour, 'UTC'), route, project, login, provider, model, class, detail, code,
                instead_of, instead_why,
                sum(enqueued), sum(succeeded), sum(failed), sum(cancelled), sum(attempts), sum(fallbacks),
                sluice.capped(sum(input_tokens)), sluice.capped(sum(cached_tokens)), sluice.capped(sum(output_tokens)),
                sluice.capped(sum(cost_nanos)), sluice.capped(sum(waste_nanos)), sluice.capped(sum(uncertain_nanos)),
                sum(unpriced), sluice.capped(sum(total_ms)), sum(repaired), sum(reasks),
                sluice.capped(sum(reask_cost_nanos)), sum(reask_unpriced), sluice.capped(sum(extra_nanos)),
                sum(extra_unknown), sluice.capped(sum(cache_write_tokens)), sluice.capped(sum(cache_priced_tokens)),
                sluice.capped(sum(cache_saved_nanos)),
                case when count(latency) = 0 then '{}' when sum(n) = 1 then string_to_array(min(latency), ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(string_agg(latency, ','), ',')::bigint[]) end,
                case when count(first_byte) = 0 then '{}'
                     when sum(n) = 1 then string_to_array(min(first_byte), ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(string_agg(first_byte, ','), ',')::bigint[]) end
           from sums group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    on conflict (hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why)
    do update set
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
         total_ms = sluice.capped(h.total_ms::numeric + excluded.total_ms),
         repaired = h.repaired + excluded.repaired,
         reasks = h.reasks + excluded.reasks,
         reask_cost_nanos = sluice.capped(h.reask_cost_nanos::numeric + excluded.reask_cost_nanos),
         reask_unpriced = h.reask_unpriced + excluded.reask_unpriced,
         extra_nanos = sluice.capped(h.extra_nanos::numeric + excluded.extra_nanos),
         extra_unknown = h.extra_unknown + excluded.extra_unknown,
         cache_write_tokens = sluice.capped(h.cache_write_tokens::numeric + excluded.cache_write_tokens),
         cache_priced_tokens = sluice.capped(h.cache_priced_tokens::numeric + excluded.cache_priced_tokens),
         cache_saved_nanos = sluice.capped(h.cache_saved_nanos::numeric + excluded.cache_saved_nanos),
         latency = case when excluded.latency = '{}' then h.latency when h.latency = '{}' then excluded.latency
                        else sluice.histogram_sum(h.latency || excluded.latency) end,
         first_byte = case when excluded.first_byte = '{}' then h.first_byte
                           when h.first_byte = '{}' then excluded.first_byte
                           else sluice.histogram_sum(h.first_byte || excluded.first_byte) end
), by_target as (
    insert into sluice.tally_hour_target as h (hour, route, provider, model, class, detail, enqueued,
                succeeded, failed, cancelled, attempts, fallbacks, input_tokens,
                cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms, repaired,
                reasks, reask_cost_nanos, reask_unpriced, extra_nanos, extra_unknown, cache_write_tokens,
                cache_priced_tokens, cache_saved_nanos, latency, first_byte,
                detours, detour_cost_nanos)
         select hour, route, provider, model, class, detail,
                sum(enqueued), sum(succeeded), sum(failed), sum(cancelled), sum(attempts), sum(fallbacks),
                sluice.capped(sum(input_tokens)), sluice.capped(sum(cached_tokens)), sluice.capped(sum(output_tokens)),
                sluice.capped(sum(cost_nanos)), sluice.capped(sum(waste_nanos)), sluice.capped(sum(uncertain_nanos)),
                sum(unpriced), sluice.capped(sum(total_ms)), sum(repaired), sum(reasks),
                sluice.capped(sum(reask_cost_nanos)), sum(reask_unpriced), sluice.capped(sum(extra_nanos)),
                sum(extra_unknown), sluice.capped(sum(cache_write_tokens)), sluice.capped(sum(cache_priced_tokens)),
                sluice.capped(sum(cache_saved_nanos)),
                case when count(latency) = 0 then '{}' when sum(n) = 1 then string_to_array(min(latency), ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(string_agg(latency, ','), ',')::bigint[]) end,
                case when count(first_byte) = 0 then '{}'
                     when sum(n) = 1 then string_to_array(min(first_byte), ',')::bigint[]
                     else sluice.histogram_sum(string_to_array(string_agg(first_byte, ','), ',')::bigint[]) end,
                sum(detours), sluice.capped(sum(detour_cost_nanos))
           from sums group by 1, 2, 3, 4, 5, 6
    on conflict (hour, route, provider, model, class, detail)
    do update set
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
         total_ms = sluice.capped(h.total_ms::numeric + excluded.total_ms),
         repaired = h.repaired + excluded.repaired,
         reasks = h.reasks + excluded.reasks,
         reask_cost_nanos = sluice.capped(h.reask_cost_nanos::numeric + excluded.reask_cost_nanos),
         reask_unpriced = h.reask_unpriced + excluded.reask_unpriced,
         extra_nanos = sluice.capped(h.extra_nanos::numeric + excluded.extra_nanos),
         extra_unknown = h.extra_unknown + excluded.extra_unknown,
         cache_write_tokens = sluice.capped(h.cache_write_tokens::numeric + excluded.cache_write_tokens),
         cache_priced_tokens = sluice.capped(h.cache_priced_tokens::numeric + excluded.cache_priced_tokens),
         cache_saved_nanos = sluice.capped(h.cache_saved_nanos::numeric + excluded.cache_saved_nanos),
         latency = case when excluded.latency = '{}' then h.latency when h.latency = '{}' then excluded.latency
                        else sluice.histogram_sum(h.latency || excluded.latency) end,
         first_byte = case when excluded.first_byte = '{}' then h.first_byte
                           when h.first_byte = '{}' then excluded.first_byte
                           else sluice.histogram_sum(h.first_byte || excluded.first_byte) end,
         detours = h.detours + excluded.detours,
         detour_cost_nanos = sluice.capped(h.detour_cost_nanos::numeric + excluded.detour_cost_nanos)
)
select (select count(*) from old) as "rows!", (select count(*) from kept) as "sums!",
       greatest(coalesce((select max(id) from sluice.tally) - (select max(id) from old), 0), 0) as "left!"
