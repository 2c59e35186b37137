-- Takes jobs away from workers that are gone, which this statement found: they are ready again, or end where as many
-- workers have died with them as may.
-- $1 the most workers that may die with a job, then for each claim $2 its job, $3 its fence
with orphan as (
    delete from sluice.inflight i using unnest($2::bigint[], $3::bigint[]) o(job_id, fence)
     where i.job_id = any (array[o.job_id]) and i.fence = o.fence
    returning i.job_id, i.fence, i.flow, i.prio, greatest(i.attempts, i.call_number) as attempts,
              (select w.stats ->> 'held_at_death' = '1' from sluice.worker w
                where w.id = i.worker) as alone,
              least(i.crashes + 1, 32767) as crashes, i.round
), back as (
    insert into sluice.ready (flow, prio, job_id, attempts, crashes, round)
         select flow, prio, job_id, attempts, crashes, round from orphan
          where crashes < $1 or alone is not true
    returning job_id
), poison as (
    insert into sluice.result (job_id, fence, state, attempts, error_class, error, cost_nanos,
                uncertain_nanos, round)
         -- A fence of its own: its worker may live, and must not take this for what it has settled itself.
         select o.job_id, nextval('sluice.fence_seq'), 'failed', o.attempts, 'abandoned',
                format('%s workers died while they held this job', o.crashes), a.cost, a.uncertain, o.round
           from orphan o cross join lateral (
                select case when count(*) = count(t.cost_nanos)
                  then sluice.capped(coalesce(sum(t.cost_nanos), 0)) end
                           as cost,
                       sluice.capped(coalesce(sum(t.uncertain_nanos), 0)) as uncertain
                  from sluice.attempt t where t.job_id = any (array[o.job_id]) and t.round >= 0) a
          where o.crashes >= $1 and o.alone
    on conflict do nothing returning job_id
), told as (
    insert into sluice.tally (hour, route, project, batch, login, class, failed)
         select date_trunc('hour', now()), j.route, j.project, coalesce(j.batch, ''), j.enqueued_by, 'abandoned',
                count(*)
           from poison p
           cross join lateral (select b.* from sluice.job b where b.id = any (array[p.job_id])) j
          group by 2, 3, 4, 5
    returning batch
)
select (select count(*) from back) as "back!",
       array(select distinct t.batch from told t where t.batch <> '') as "batches!",
       array(select p.job_id from poison p order by p.job_id) as "poison!",
       array(select o.crashes from orphan o where o.job_id = any (array(select p.job_id from poison p))
              order by o.job_id) as "crashes!"
