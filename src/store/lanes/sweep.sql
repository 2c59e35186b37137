-- The lanes of the ready jobs that lie next to each other in the table, behind the place $1 and up to the block $2, of
-- $3 jobs at most. Of the flow of each job it is the lane with the highest priority, with a look at its first job. The
-- number of its jobs comes with it where that is small and all of them have this priority; and the place of the job
-- where there is only one. Each row says where the sweep ended, and how many jobs it saw.
--
-- Jobs that were enqueued together lie together, here and in `sluice.job`. A worker that takes them together reads a
-- page once for many jobs. In the order of the index, which is that of a hash, it would read several for each. The
-- lanes come in the order of their jobs, because this statement reads the rows of the jobs too.
with swept as materialized (
    select r.flow, r.job_id, r.ctid as place from sluice.ready r
     where r.ctid > $1::text::tid and r.ctid < ('(' || $2::bigint || ',0)')::tid limit $3
), ended as (
    select max(s.place)::text as reached, count(*) as jobs from swept s
)
select e.reached, e.jobs as swept, f.flow, h.prio, h.first, h.jobs, h.place, j.route, j.project, j.batch,
       j.enqueued_by as login, j.deadline
  from ended e
       cross join (select s.flow from swept s group by s.flow order by min(s.job_id)) f
       cross join lateral (
           select min(q.prio) as prio, (array_agg(q.job_id))[1] as first,
                  case when count(*) <= 8 and min(q.prio) = max(q.prio) then count(*)::integer end as jobs,
                  case when count(*) = 1 then min(q.place)::text end as place
             from (select r.prio, r.job_id, r.ctid as place from sluice.ready r
                    where r.flow = f.flow order by r.flow, r.prio, r.job_id limit 9) q) h
       cross join lateral (
           select b.route, b.project, b.batch, b.enqueued_by,
                  -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
                  case when b.deadline < '9999-12-31 00:00:00+00'
                       then greatest(b.deadline, '1970-01-01 00:00:00+00') end as deadline
             from sluice.job b where b.id = h.first limit 1) j
