-- Of each stretch of the queue (from $1 to $2) the first lanes, at most $3 of them and a few more, with a look at the
-- first job of each, and with the number of its jobs where that is small. $4: of each flow only the lane with the
-- highest priority.
--
-- It goes in steps. A step reads a few rows in index order, and the next one begins behind the lane of the last of
-- them: so thin lanes cost next to nothing each, and deep ones a descent of the index, however many jobs they have.
select s.n as "stretch!", l.flow as "flow!", l.prio as "prio!", l.first as "first!", j.route as "route!",
       j.project as "project!", j.batch, j.enqueued_by as "login!", j.deadline, l.jobs
  from unnest($1::bigint[], $2::bigint[], $3::integer[]) with ordinality s(first, last, most, n)
       cross join lateral (
           with recursive step as (
               select s.first as flow, -32768 as prio, 0 as lanes, '{}'::bigint[] as flows, '{}'::smallint[] as prios,
                      '{}'::bigint[] as firsts, '{}'::integer[] as counts
               union all
               select r.flows[cardinality(r.flows)],
                      case when $4 then 32767 else r.prios[cardinality(r.flows)]::integer end,
                      w.lanes + cardinality(r.flows), r.flows, r.prios, r.firsts, r.counts
                 from step w cross join lateral (
                      select array_agg(d.flow) as flows, array_agg(d.prio) as prios, array_agg(d.first) as firsts,
                             array_agg(case when d.upto <= least(s.most, 8) then d.jobs::integer end) as counts
                        from (select p.flow, p.prio, min(p.job_id) as first, count(*) as jobs,
                                     sum(count(*)::integer) over so_far as upto, lag(p.flow) over so_far as before
                                from (select r.flow, r.prio, r.job_id from sluice.ready r
                                       where (r.flow, r.prio) > (w.flow, w.prio) and r.flow <= s.last
                                       order by r.flow, r.prio, r.job_id limit least(s.most, 8) + 1) p
                               group by p.flow, p.prio
                              window so_far as (order by p.flow, p.prio rows unbounded preceding)) d
                       -- The lane that the last row belongs to may go on. It waits for the next step, unless it fills
                       -- this one.
                       where (d.upto <= least(s.most, 8) or d.upto = d.jobs)
                         and not ($4 and d.flow is not distinct from d.before)) r
                where w.lanes < s.most and r.flows is not null
           )
           select l.flow, l.prio, l.first, l.jobs
             from step w cross join lateral unnest(w.flows, w.prios, w.firsts, w.counts) l(flow, prio, first, jobs)) l
       cross join lateral (
           select b.route, b.project, b.batch, b.enqueued_by,
                  -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
                  case when b.deadline < '9999-12-31 00:00:00+00'
                       then greatest(b.deadline, '1970-01-01 00:00:00+00') end as deadline
             from sluice.job b where b.id = l.first limit 1) j
 order by s.n, l.flow, l.prio
