-- Removes rows that were booked in place of calls $1 to $3, from the ledger, the sums and the budgets.
with gone as (
    delete from sluice.attempt a
     using unnest($1::bigint[], $2::bigint[], $3::smallint[]) c(job_id, fence, number)
     where a.job_id = any (array[c.job_id]) and a.fence = c.fence and a.number = c.number and a.placeholder
    returning a.*
), untold as (
    insert into sluice.tally (hour, route, project, batch, login, provider, model, class, detail, attempts,
                uncertain_nanos, unpriced, total_ms)
         select date_trunc('hour', g.ended_at), j.route, j.project, coalesce(j.batch, ''), j.enqueued_by,
                g.provider, g.model, coalesce(g.class, ''), coalesce(g.detail, ''), -count(*),
                -sum(g.uncertain_nanos), -(count(*) - count(g.cost_nanos)), -sum(g.total_ms)
           from gone g join sluice.job j on j.id = any (array[g.job_id])
          group by 1, 2, 3, 4, 5, 6, 7, 8, 9
), uncounted as materialized (
    select sluice.count_spending(array_agg(g.job_id), array_agg(g.round), array_agg(g.provider),
                                 array_agg(g.ended_at), array_agg(g.cost_nanos),
                                 array_agg(g.uncertain_nanos), -1)
      from gone g
     where exists (select from sluice.budget)
    having count(*) > 0
)
select count(*) as "removed!" from gone where (select count(*) from uncounted) >= 0
