-- The jobs from number $1 to $2 whose result costs something else than all their calls.
select r.job_id
  from sluice.result r left join (
           select a.job_id, count(*) - count(a.cost_nanos) as unpriced, sum(a.cost_nanos) as cost,
                  sum(a.uncertain_nanos) as uncertain
             from sluice.attempt a
            where a.job_id between $1 and $2 and a.round >= 0
            group by a.job_id) b on b.job_id = r.job_id
 where r.job_id between $1 and $2
   and (r.cost_nanos, r.uncertain_nanos) is distinct from
       (case when coalesce(b.unpriced, 0) = 0 then sluice.capped(coalesce(b.cost, 0)) end,
        sluice.capped(coalesce(b.uncertain, 0)))
 order by r.job_id
