-- Writes into the results of the jobs $1 what all their calls cost, where they say otherwise.
update sluice.result r
   set cost_nanos = b.cost, uncertain_nanos = b.uncertain
  from unnest($1::bigint[]) w(job_id) cross join lateral (
           select case when count(*) = count(a.cost_nanos)
                       then sluice.capped(coalesce(sum(a.cost_nanos), 0)) end as cost,
                  sluice.capped(coalesce(sum(a.uncertain_nanos), 0)) as uncertain
             -- A call of a lost job (round -1) is none of the job that has its number.
             from sluice.attempt a where a.job_id = any (array[w.job_id]) and a.round >= 0) b
 where r.job_id = any (array[w.job_id]) and (r.cost_nanos, r.uncertain_nanos) is distinct from (b.cost, b.uncertain)
