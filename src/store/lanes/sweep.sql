-- The lanes of the ready jobs that lie next to each other in the table, behind the place $1 and up to the block $2, of
-- $3 jobs at most: of the flow of each job the first nine jobs, in the order in which they are claimed. Each row says
-- where the sweep ended, and how many jobs it saw. The caller adds the rows of a flow up: here that takes longer than
-- reading them.
--
-- Jobs that were enqueued together lie together, here and in `sluice.job`. A worker that takes them together reads a
-- page once for many jobs. In the order of the index, which is that of a hash, it would read several for each.
with swept as materialized (
    select r.flow, r.ctid as place from sluice.ready r
     where r.ctid > $1::text::tid and r.ctid < ('(' || $2::bigint || ',0)')::tid limit $3
), ended as (
    select max(s.place)::text as reached, count(*) as jobs from swept s
)
select e.reached, e.jobs as swept, f.flow, h.prio, h.job_id, h.place
  from ended e
       cross join (select distinct s.flow from swept s) f
       cross join lateral (
           select r.prio, r.job_id, r.ctid::text as place from sluice.ready r
            where r.flow = f.flow order by r.flow, r.prio, r.job_id limit 9) h
