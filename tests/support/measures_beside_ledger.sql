-- How many sums differ from the ledger: each measure, by everything that sums are kept by. None should.
with ledger as (
    select date_trunc('hour', a.ended_at) as hour, j.route, j.project, coalesce(j.batch, '') as batch,
           j.enqueued_by as login, a.provider, a.model, coalesce(a.class, '') as class,
           coalesce(a.detail, '') as detail, sluice.failure_code(a.class, a.code, a.http_status) as code,
           case when a.accepted then coalesce(a.instead_of, '') else '' end as instead_of,
           case when a.accepted then coalesce(a.instead_why, '') else '' end as instead_why,
           count(*) as attempts, sum(a.input_tokens + a.cache_read_tokens + a.cache_write_tokens) as input_tokens,
           sum(a.cache_read_tokens) as cached_tokens, sum(a.output_tokens) as output_tokens,
           coalesce(sum(a.cost_nanos), 0) as cost_nanos,
           coalesce(sum(a.cost_nanos) filter (where not a.accepted), 0) as waste_nanos,
           sum(a.uncertain_nanos) as uncertain_nanos, count(*) - count(a.cost_nanos) as unpriced,
           sum(a.total_ms) as total_ms, count(a.reask_of) as reasks,
           coalesce(sum(a.cost_nanos) filter (where a.reask_of is not null), 0) as reask_cost_nanos,
           count(a.reask_of) - count(a.cost_nanos) filter (where a.reask_of is not null) as reask_unpriced,
           coalesce(sum(a.cost_nanos - a.instead_nanos) filter (where a.accepted), 0) as extra_nanos,
           count(a.instead_of) filter (where a.accepted)
             - count(a.cost_nanos - a.instead_nanos) filter (where a.accepted) as extra_unknown,
           sum(a.cache_write_tokens) as cache_write_tokens,
           coalesce(sum(a.cache_read_tokens + a.cache_write_tokens)
               filter (where a.cache_saved_nanos is not null), 0) as cache_priced_tokens,
           coalesce(sum(a.cache_saved_nanos), 0) as cache_saved_nanos
      from sluice.attempt a join sluice.job j on j.id = a.job_id
     group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
), sums as (
    select hour, route, project, batch, login, provider, model, class, detail, code, instead_of, instead_why,
           sum(attempts) as attempts, sum(input_tokens) as input_tokens, sum(cached_tokens) as cached_tokens,
           sum(output_tokens) as output_tokens, sum(cost_nanos) as cost_nanos, sum(waste_nanos) as waste_nanos,
           sum(uncertain_nanos) as uncertain_nanos, sum(unpriced) as unpriced, sum(total_ms) as total_ms,
           sum(reasks) as reasks, sum(reask_cost_nanos) as reask_cost_nanos, sum(reask_unpriced) as reask_unpriced,
           sum(extra_nanos) as extra_nanos, sum(extra_unknown) as extra_unknown,
           sum(cache_write_tokens) as cache_write_tokens, sum(cache_priced_tokens) as cache_priced_tokens,
           sum(cache_saved_nanos) as cache_saved_nanos
      from sluice.totals group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 having sum(attempts) <> 0
), together as (
    -- All batches together are the sums of the batches.
    select hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why,
           sum(enqueued) as a, sum(succeeded) as b, sum(failed) as c, sum(cancelled) as d, sum(attempts) as e,
           sum(fallbacks) as f, sum(input_tokens) as g, sum(cached_tokens) as h, sum(output_tokens) as i,
           sum(cost_nanos) as k, sum(waste_nanos) as l, sum(uncertain_nanos) as m, sum(unpriced) as n,
           sum(total_ms) as o, sum(repaired) as p, sum(reasks) as q, sum(reask_cost_nanos) as r,
           sum(reask_unpriced) as s, sum(extra_nanos) as t, sum(extra_unknown) as u,
           sum(cache_write_tokens) as x, sum(cache_priced_tokens) as y, sum(cache_saved_nanos) as z
      from sluice.totals group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
), alone as (
    select hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why,
           sum(enqueued) as a, sum(succeeded) as b, sum(failed) as c, sum(cancelled) as d, sum(attempts) as e,
           sum(fallbacks) as f, sum(input_tokens) as g, sum(cached_tokens) as h, sum(output_tokens) as i,
           sum(cost_nanos) as k, sum(waste_nanos) as l, sum(uncertain_nanos) as m, sum(unpriced) as n,
           sum(total_ms) as o, sum(repaired) as p, sum(reasks) as q, sum(reask_cost_nanos) as r,
           sum(reask_unpriced) as s, sum(extra_nanos) as t, sum(extra_unknown) as u,
           sum(cache_write_tokens) as x, sum(cache_priced_tokens) as y, sum(cache_saved_nanos) as z
      from sluice.totals_all group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
), days as (
    select hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why,
           sum(enqueued) as a, sum(succeeded) as b, sum(failed) as c, sum(cancelled) as d, sum(attempts) as e,
           sum(fallbacks) as f, sum(input_tokens) as g, sum(cached_tokens) as h, sum(output_tokens) as i,
           sum(cost_nanos) as k, sum(waste_nanos) as l, sum(uncertain_nanos) as m, sum(unpriced) as n,
           sum(total_ms) as o, sum(repaired) as p, sum(reasks) as q, sum(reask_cost_nanos) as r,
           sum(reask_unpriced) as s, sum(extra_nanos) as t, sum(extra_unknown) as u,
           sum(cache_write_tokens) as x, sum(cache_priced_tokens) as y, sum(cache_saved_nanos) as z
      from sluice.totals_days group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
), of_days as (
    -- And those of the days are the sums of their hours.
    select date_trunc('day', hour, 'UTC') as hour, route, project, login, provider, model, class, detail, code,
           instead_of, instead_why,
           sum(enqueued) as a, sum(succeeded) as b, sum(failed) as c, sum(cancelled) as d, sum(attempts) as e,
           sum(fallbacks) as f, sum(input_tokens) as g, sum(cached_tokens) as h, sum(output_tokens) as i,
           sum(cost_nanos) as k, sum(waste_nanos) as l, sum(uncertain_nanos) as m, sum(unpriced) as n,
           sum(total_ms) as o, sum(repaired) as p, sum(reasks) as q, sum(reask_cost_nanos) as r,
           sum(reask_unpriced) as s, sum(extra_nanos) as t, sum(extra_unknown) as u,
           sum(cache_write_tokens) as x, sum(cache_priced_tokens) as y, sum(cache_saved_nanos) as z
      from sluice.totals_all group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
), targets as (
    -- So are those without what the jobs are, which are folded together with the others.
    select hour, route, provider, model, class, detail,
           sum(enqueued) as a, sum(succeeded) as b, sum(failed) as c, sum(cancelled) as d, sum(attempts) as e,
           sum(fallbacks) as f, sum(input_tokens) as g, sum(cached_tokens) as h, sum(output_tokens) as i,
           sum(cost_nanos) as k, sum(waste_nanos) as l, sum(uncertain_nanos) as m, sum(unpriced) as n,
           sum(total_ms) as o, sum(repaired) as p, sum(reasks) as q, sum(reask_cost_nanos) as r,
           sum(reask_unpriced) as s, sum(extra_nanos) as t, sum(extra_unknown) as u,
           sum(cache_write_tokens) as x, sum(cache_priced_tokens) as y, sum(cache_saved_nanos) as z,
           sum(detours) as v, sum(detour_cost_nanos) as w
      from sluice.tally_hour_target group by 1, 2, 3, 4, 5, 6
), of_targets as (
    select hour, route, provider, model, class, detail,
           sum(enqueued) as a, sum(succeeded) as b, sum(failed) as c, sum(cancelled) as d, sum(attempts) as e,
           sum(fallbacks) as f, sum(input_tokens) as g, sum(cached_tokens) as h, sum(output_tokens) as i,
           sum(cost_nanos) as k, sum(waste_nanos) as l, sum(uncertain_nanos) as m, sum(unpriced) as n,
           sum(total_ms) as o, sum(repaired) as p, sum(reasks) as q, sum(reask_cost_nanos) as r,
           sum(reask_unpriced) as s, sum(extra_nanos) as t, sum(extra_unknown) as u,
           sum(cache_write_tokens) as x, sum(cache_priced_tokens) as y, sum(cache_saved_nanos) as z,
           coalesce(sum(attempts) filter (where instead_of <> ''), 0) as v,
           coalesce(sum(cost_nanos) filter (where instead_of <> ''), 0) as w
      from sluice.tally_hour_all group by 1, 2, 3, 4, 5, 6
)
select (select count(*) from ledger) as of_ledger,
       (select count(*) from ((table ledger except table sums) union all (table sums except table ledger)) d) as astray,
       (select count(*) from ((table together except table alone) union all (table alone except table together)
                              union all (table days except table of_days)
                              union all (table of_days except table days)) d)
         + (select count(*) from ((table targets except table of_targets)
                                  union all (table of_targets except table targets)) d)
           as apart
