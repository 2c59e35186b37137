-- The batches in which something happened last: those of the latest hour first, and within an hour by name. At most $3
-- of them, behind a batch ($1: its last hour, $2: its name) if there is one. The walk goes from one batch of an hour to
-- the next, and from there to the hour before: the number of batches behind it does not matter.
with recursive fresh as materialized (
    -- Sums that are not folded yet: few, and of the last seconds.
    select f.batch, greatest(f.hour, (select max(t.hour) from sluice.tally_hour t
                                       where t.batch = f.batch and t.batch <> '')) as hour
      from (select batch, max(hour) as hour from sluice.tally where batch <> '' group by batch) f
), step as (
    select coalesce($1::timestamptz, 'infinity') as hour, $2::text as batch, 0::bigint as found, false as is_found
    union all
    select next.hour, next.batch, step.found + last.is_found::integer, last.is_found
      from step
           cross join lateral (
               select n.hour, n.batch
                 from ((select t.hour, t.batch from sluice.tally_hour t
                         where t.hour = step.hour and t.batch > step.batch and t.batch <> ''
                         order by t.batch limit 1)
                       union all
                       (select t.hour, t.batch from sluice.tally_hour t
                         where t.hour < step.hour and t.batch <> ''
                         order by t.hour desc, t.batch limit 1)) n
                order by n.hour desc limit 1) next
           cross join lateral (
               -- It stands at its last hour alone.
               select not exists (select from sluice.tally_hour t
                                   where t.batch = next.batch and t.batch <> '' and t.hour > next.hour)
                      and not exists (select from fresh where fresh.batch = next.batch) as is_found offset 0) last
     where step.found < $3
)
select batch as "batch!"
  from (select hour, batch from step where is_found
        union all
        select hour, batch from fresh
         where hour < coalesce($1, 'infinity') or (hour = $1 and batch > $2)) found
 order by hour desc, batch limit $3
