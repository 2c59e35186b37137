-- The sums of the books, and what contradicts them.
with gone as (
    select coalesce(sum(jobs), 0)::bigint as jobs, coalesce(sum(succeeded), 0)::bigint as succeeded,
           coalesce(sum(succeeded + failed + cancelled), 0)::bigint as results,
           coalesce(sum(attempts), 0)::bigint as attempts, coalesce(sum(accepted), 0)::bigint as accepted,
           sluice.capped(coalesce(sum(cost_nanos), 0)) as cost
      from sluice.retired
), live as (
    select job_id from sluice.ready union all select job_id from sluice.parked
    union all select job_id from sluice.inflight
), bill as (
    select job_id, case when count(*) = count(cost_nanos) then sluice.capped(sum(cost_nanos)) end as cost,
           sluice.capped(sum(uncertain_nanos)) as uncertain
      from sluice.attempt where round >= 0 group by job_id
)
select (select count(*) from sluice.job) + gone.jobs as "jobs!",
       (select count(*) from sluice.result) + gone.results as "results!",
       (select count(*) from sluice.result where state = 'succeeded') + gone.succeeded as "succeeded!",
       (select count(*) from live) as "unfinished!",
       (select count(*) from sluice.job j
         where not exists (select from sluice.result r where r.job_id = j.id)
           and not exists (select from live l where l.job_id = j.id)) as "lost!",
       (select coalesce(sum(succeeded + failed + cancelled), 0)::bigint from sluice.totals) as "endings!",
       (select count(*) from sluice.attempt) + gone.attempts as "attempts!",
       (select count(*) from sluice.attempt where accepted) + gone.accepted as "accepted!",
       -- `least` leaves out what is null, and would make of an unknown cost the largest.
       (select sluice.capped(coalesce(sum(least(cost_nanos, 1000000000000000)) filter (where cost_nanos is not null), 0)
                             + gone.cost)
         from sluice.attempt) as "cost!",
       (select sluice.capped(coalesce(sum(cost_nanos), 0)) from sluice.totals) as "tallied!",
       (select count(*) from sluice.result r left join bill b on b.job_id = r.job_id
         where (r.cost_nanos, r.uncertain_nanos) is distinct from
               (case when b.job_id is null then 0 else b.cost end, coalesce(b.uncertain, 0)))
           as "misbilled!"
  from gone
