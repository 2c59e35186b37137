-- The lanes of the newest jobs that are ready, of 200 jobs that are looked at: what has just come is found at once,
-- however many lanes there are. Of the flow of each it is the lane with the highest priority. The newest job comes
-- last. (The number stands here because a plan for any number takes a tenth of the table for likely, and sorts all of
-- it.)
select h.flow as "flow!", h.prio as "prio!", h.job_id as "first!", j.route as "route!", j.project as "project!",
       j.batch, j.enqueued_by as "login!", j.deadline, null::integer as jobs,
       null::text as place
  from (select b.id, b.route, b.project, b.batch, b.enqueued_by, b.priority,
               -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
               case when b.deadline < '9999-12-31 00:00:00+00'
                    then greatest(b.deadline, '1970-01-01 00:00:00+00') end as deadline
          from sluice.job b order by b.id desc limit 200) j
       cross join lateral (
           select q.flow from sluice.ready q
            where q.flow = any (sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by))
              and q.prio = any (array[-(j.priority::integer)]) and q.job_id = any (array[j.id]) limit 1) r
       cross join lateral (
           select q.flow, q.prio, q.job_id from sluice.ready q
            where q.flow = r.flow order by q.flow, q.prio, q.job_id limit 1) h
 order by j.id
