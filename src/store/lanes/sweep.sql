-- The lanes of the ready jobs that lie next to each other in the table, behind the place $1 and up to the block $2, of
-- $3 jobs at most. Of the flow of each job it is the lane with the highest priority, with a look at its first job, and
-- with the number of its jobs where that is small. Each row says where the sweep ended, and how many jobs it saw.
--
-- Jobs that were enqueued together lie together, here and in `sluice.job`. A worker that takes them together reads a
-- page once for many jobs. In the order of the index, which is that of a hash, it would read several for each.
with swept as materialized (
    select r.flow, r.ctid as place from sluice.ready r
     where r.ctid > $1::text::tid and r.ctid < ('(' || $2::bigint || ',0)')::tid limit $3
), ended as (
    select max(s.place)::text as place, count(*) as jobs from swept s
)
select e.place, e.jobs as swept, f.flow, h.prio, h.first, j.route, j.project, j.batch, j.enqueued_by as login, j.deadline,
       h.jobs
  from ended e
       cross join (select distinct s.flow from swept s) f
       cross join lateral (
           select q.prio, min(q.job_id) as first, case when count(*) <= 8 then count(*)::integer end as jobs
             from (select r.prio, r.job_id from sluice.ready r
                    where r.flow = f.flow order by r.flow, r.prio, r.job_id limit 9) q
            group by q.prio order by q.prio limit 1) h
       cross join lateral (
           select b.route, b.project, b.batch, b.enqueued_by,
                  -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
                  case when b.deadline < '9999-12-31 00:00:00+00'
                       then greatest(b.deadline, '1970-01-01 00:00:00+00') end as deadline
             from sluice.job b where b.id = h.first limit 1) j
