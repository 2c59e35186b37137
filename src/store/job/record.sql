-- One job with what is known of it.
-- $1 its number
select j.route, j.project, j.batch, j.custom_id, j.priority, j.max_attempts,
       -- A driver knows no infinity.
       case when j.run_at is not null
            then least(greatest(j.run_at, '1970-01-01 00:00:00+00'),
              '9999-12-31 00:00:00+00') end as run_at,
       case when j.deadline is not null
            then least(greatest(j.deadline, '1970-01-01 00:00:00+00'),
              '9999-12-31 00:00:00+00') end as deadline,
       j.enqueued_by,
       least(greatest(j.created_at, '1970-01-01 00:00:00+00'),
         '9999-12-31 00:00:00+00') as "created_at!",
       j.metadata::text as metadata, j.request::text as "request!", q.crashes as "ready_crashes?",
       case when p.run_at is not null
            then least(greatest(p.run_at, '1970-01-01 00:00:00+00'),
              '9999-12-31 00:00:00+00') end as parked_until,
       p.reason as "parked_reason?", x.by as "paused_by?", x.since as "paused_since?", x.reason as "pause_reason?",
       (select v.waits_for from sluice.jobs v where v.id = $1) as waits_for,
       i.worker as "worker?", i.claimed_at as "claimed_at?",
       -- Between two calls the row names the last one, which the ledger has.
       case when not exists (select from sluice.attempt a
                              where a.job_id = i.job_id and a.fence = i.fence and a.number = i.call_number)
            then i.call_provider || '/' || i.call_model end as "call_target?",
       i.call_started as "call_started?", w.host as "host?", w.pid as "pid?",
       coalesce(w.state = 'live' and w.lease_until > now(), false) as "alive!",
       r.state as "state?", r.finished_at as "finished_at?",
       r.provider || '/' || r.model as target, r.repaired as "repaired?", r.answered_from,
       r.low_confidence as "low_confidence?", r.error_class, r.error,
       r.cost_nanos, r.uncertain_nanos as "uncertain_nanos?",
       coalesce(r.response, r.response_json::jsonb) as response,
       (select s.shadow_id from sluice.shadow s where s.job_id = $1) as shadow,
       (select s.job_id from sluice.shadow s where s.shadow_id = $1) as shadow_of
  from sluice.job j
       left join sluice.result r on r.job_id = j.id
       left join sluice.ready q
              on q.flow = any (sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by))
             and q.prio = -(j.priority::integer) and q.job_id = j.id
       left join sluice.parked p on p.job_id = j.id
       left join sluice.paused_job x on x.job_id = j.id
       left join sluice.inflight i on i.job_id = j.id
       left join sluice.worker w on w.id = i.worker
 where j.id = $1
