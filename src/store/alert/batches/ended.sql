-- Notes which batches have ended or gone on since the last look. Answers with those that have ended.
with recent as materialized (
    select distinct t.batch
      from sluice.alert_watch w join sluice.totals t on t.batch <> '' and t.hour >= w.batches_since
), sums as materialized (
    select t.batch, sum(t.enqueued)::bigint as jobs, sum(t.succeeded)::bigint as succeeded,
           sum(t.failed)::bigint as failed, sum(t.cancelled)::bigint as cancelled,
           sum(t.attempts)::bigint as attempts, sluice.capped(sum(t.cost_nanos)) as cost,
           sluice.capped(sum(t.uncertain_nanos)) as uncertain, sum(t.unpriced)::bigint as unpriced
      from sluice.totals t
     where t.batch <> '' and t.batch = any (array(select r.batch from recent r))
     group by t.batch
), opened as (
    update sluice.batch_end e set is_open = true from sums s
     where e.batch = s.batch and not e.is_open and s.jobs > s.succeeded + s.failed + s.cancelled
), ended as (
    insert into sluice.batch_end as e (batch, jobs, succeeded, failed, cancelled, times)
    select s.batch, s.jobs, s.succeeded, s.failed, s.cancelled, 1 from sums s
     where s.jobs > 0 and s.jobs = s.succeeded + s.failed + s.cancelled
    on conflict (batch) do update
       set jobs = excluded.jobs, succeeded = excluded.succeeded, failed = excluded.failed,
           cancelled = excluded.cancelled, is_open = false, times = e.times + 1, ended_at = now()
     where e.is_open or (e.jobs, e.succeeded, e.failed, e.cancelled)
           is distinct from (excluded.jobs, excluded.succeeded, excluded.failed, excluded.cancelled)
    returning e.batch, e.times
)
select s.batch as "batch!", s.jobs as "jobs!", s.succeeded as "succeeded!", s.failed as "failed!",
       s.cancelled as "cancelled!", s.attempts as "attempts!", s.cost as "cost!",
       s.uncertain as "uncertain!", s.unpriced as "unpriced!", e.times
  from ended e join sums s on s.batch = e.batch order by s.batch
