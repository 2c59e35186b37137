-- How many classes of the histograms differ from the ledger, by hour, target and what the job is. None should.
with ledger as (
    select date_trunc('hour', a.ended_at) as hour, j.route, j.project, j.enqueued_by as login, a.provider, a.model,
           k.kind, sluice.latency_class(k.ms)::bigint as class, count(*)::numeric as n
      from sluice.attempt a join sluice.job j on j.id = a.job_id
           cross join lateral (values ('whole', a.total_ms), ('first byte', a.first_byte_ms)) k(kind, ms)
     where a.accepted and k.ms is not null
     group by 1, 2, 3, 4, 5, 6, 7, 8
), parts as (
    select hour, route, project, login, provider, model, 'whole' as kind, h.part
      from sluice.totals_all, unnest(latency) h(part)
     union all
    select hour, route, project, login, provider, model, 'first byte', h.part
      from sluice.totals_all, unnest(first_byte) h(part)
), sums as (
    select hour, route, project, login, provider, model, kind, part >> 40 as class, sum(part & 1099511627775) as n
      from parts group by 1, 2, 3, 4, 5, 6, 7, 8
), by_batch as (
    select h.part >> 40 as class, sum(h.part & 1099511627775) as n
      from sluice.totals, unnest(latency) h(part) group by 1
), by_day as (
    select h.part >> 40 as class, sum(h.part & 1099511627775) as n
      from sluice.totals_days, unnest(latency) h(part) group by 1
), by_target as (
    select h.part >> 40 as class, sum(h.part & 1099511627775) as n
      from sluice.tally_hour_target, unnest(latency) h(part) group by 1
), of_targets as (
    select h.part >> 40 as class, sum(h.part & 1099511627775) as n
      from sluice.tally_hour_all, unnest(latency) h(part) group by 1
), all_batches as (
    select class, sum(n) as n from sums where kind = 'whole' group by 1
)
select (select count(*) from ledger) as of_ledger,
       (select count(*) from ((table ledger except table sums) union all (table sums except table ledger)) d) as astray,
       (select count(*) from ((table by_batch except table all_batches)
                              union all (table all_batches except table by_batch)
                              union all (table by_day except table all_batches)
                              union all (table by_target except table of_targets)
                              union all (table of_targets except table by_target)) d) as apart
