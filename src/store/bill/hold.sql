-- Keeps the jobs $1 where they are, in a queue or in a worker's hands, and says which were found there or have ended.
with w as materialized (
    select job_id from unnest($1::bigint[]) w(job_id)
), running as (
    select i.job_id from w join sluice.inflight i on i.job_id = any (array[w.job_id]) for key share of i
), parked as (
    select p.job_id from w join sluice.parked p on p.job_id = any (array[w.job_id]) for key share of p
), waiting as (
    select r.job_id
      from w join sluice.job j on j.id = any (array[w.job_id])
           join sluice.ready r on r.flow = any (sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by))
                              and r.prio = any (array[(-j.priority)::smallint]) and r.job_id = any (array[j.id])
       for key share of r
)
select job_id as "job_id!" from running
 union all
select job_id from parked
 union all
select job_id from waiting
 union all
select w.job_id
  from w cross join lateral (select from sluice.result r where r.job_id = any (array[w.job_id]) limit 1) r
