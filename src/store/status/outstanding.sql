-- Whether jobs of routes $1 are ready, running or waiting for a retry, as far as the first $2 lanes tell.
with recursive lane as (
    (select flow, job_id, 1 as step from sluice.ready order by flow, prio, job_id limit 1)
    union all
    select n.flow, n.job_id, l.step + 1
      from lane l cross join lateral (
           select r.flow, r.job_id from sluice.ready r
            where r.flow > l.flow order by r.flow, r.prio, r.job_id limit 1) n
     where l.step < $2
)
select exists (select from sluice.inflight)
    -- In these very words: there is an index of what waits for a retry.
    or exists (select from sluice.parked k where k.reason not in ('scheduled', 'paused')
                  and not exists (select from sluice.shadow s where s.shadow_id = k.job_id)
                  -- Where there is room for some job, one that rests for long needs more.
                  and not exists (select from sluice.budgets b
                                   where b.period = 'once' and k.reason = 'budget ' || b.name
                                     and (b.holds or k.run_at > now() + interval '3 seconds'))
                  -- A paused provider, where there is no other rung.
                  and not exists (select from sluice.pause v
                                   where v.kind = 'provider' and starts_with(k.reason, v.name || '/')
                                     and k.reason ~ ': paused \((nowhere|no fallback|patience without)'))
    -- Its hour has come, and no worker has put it into the queue yet.
    or exists (select from sluice.parked k where k.run_at <= now() and k.reason = 'scheduled')
    or exists (select from lane l cross join lateral (
                      select b.route, b.project, b.batch, b.enqueued_by
                        from sluice.job b where b.id = l.job_id limit 1) j
                where j.route = any ($1)
                  and not exists (select from sluice.pause p
                                   where (p.kind, p.name) in (('route', j.route), ('project', j.project),
                                                              ('batch', j.batch)))
                  -- Only a person ends that wait.
                  and not exists (select from sluice.budgets b
                                   where b.period = 'once' and b.holds
                                     and sluice.budget_covers(b.scope, coalesce(b.scope_name, ''), j.route,
                                                              j.project, j.batch, j.enqueued_by, null)))
           as "busy!",
       (select max(flow) from lane having count(*) >= $2) as last
