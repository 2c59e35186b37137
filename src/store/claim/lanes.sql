-- The lanes that have ready jobs: one descent of the index for each.
with recursive lane as (
    (select flow, prio, job_id from sluice.ready order by flow, prio, job_id limit 1)
    union all
    select n.flow, n.prio, n.job_id
      from lane l cross join lateral (
           select r.flow, r.prio, r.job_id from sluice.ready r
            where (r.flow, r.prio) > (l.flow, l.prio)
            order by r.flow, r.prio, r.job_id limit 1) n
)
select l.flow as "flow!", l.prio as "prio!", l.job_id as "first!", j.route as "route!",
       j.project as "project!", j.batch, j.deadline
  from lane l cross join lateral (
       select b.route, b.project, b.batch,
              -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
              case when b.deadline < '9999-12-31 00:00:00+00'
                   then greatest(b.deadline, '1970-01-01 00:00:00+00') end as deadline
         from sluice.job b where b.id = l.job_id limit 1) j
