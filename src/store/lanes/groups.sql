-- Of each stretch of the queue (from $1 to $2) the flows that come first in their group, at most $3 of them: one
-- descent of the index for each. A group is what differs in the bits $4 only.
select s.n as "stretch!", g.flow as "flow!"
  from unnest($1::bigint[], $2::bigint[], $3::integer[]) with ordinality s(first, last, most, n)
       cross join lateral (
           with recursive walk as (
               (select r.flow, 1 as step from sluice.ready r
                 where r.flow >= s.first and r.flow <= s.last order by r.flow limit 1)
               union all
               select n.flow, w.step + 1
                 from walk w cross join lateral (
                      select r.flow from sluice.ready r
                       where r.flow > (w.flow | $4) and r.flow <= s.last order by r.flow limit 1) n
                where w.step < s.most
           )
           select w.flow, w.step from walk w) g
 order by s.n, g.step
