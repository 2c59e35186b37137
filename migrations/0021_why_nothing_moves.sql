-- One answer to the question why a job does not go on, wherever the job is; and who paused what.

-- ------------------------------------------------------------------------------------------------- who paused it
-- Without the default first: a pause that is in force was not made by the login that migrates.
alter table sluice.pause add column paused_by text;
alter table sluice.pause alter column paused_by set default session_user;

comment on column sluice.pause.paused_by is
    'The login that paused it; for a stop-loss, that of the worker. NULL: it was paused before version 21 of the '
    'schema.';

-- ------------------------------------------------------------------------------------------------- what is in the way
create view sluice.hindrances as
select c.said as claimers,
       (select coalesce(jsonb_object_agg(k.kind, k.names), '{}')
          from (select p.kind, jsonb_object_agg(p.name, true) as names
                  from sluice.pause p where p.kind <> 'provider' group by p.kind) k) as paused
  from sluice.claimers c;

comment on view sluice.hindrances is
    'One row: what the workers that take jobs say, and which batches, routes and projects are paused. Read '
    'sluice.jobs.waits_for.';

-- A job that rests for a target and is not due yet says what it rests for, but only where a worker lives that could go
-- on with it: otherwise that is what it waits for. A job that is due waits for what ready jobs wait for.
create function sluice.waits_for(claimers jsonb, paused jsonb, route text, project text, batch text, rests text,
                                 is_due boolean) returns text
    language sql immutable parallel safe
    begin atomic
        select case
                   when rests = 'paused' then rests
                   when paused -> 'batch' ? waits_for.batch then 'batch paused'
                   when paused -> 'route' ? waits_for.route then 'route paused'
                   when paused -> 'project' ? waits_for.project then 'project paused'
                   when rests = 'scheduled' and not is_due then rests
                   else (
                       with claimer as (
                           select c.it -> 'routes' as routes, c.it -> 'waits' -> waits_for.route as waits
                             from jsonb_array_elements(claimers) c(it)
                            where coalesce(c.it ->> 'only', waits_for.batch, '') = coalesce(waits_for.batch, '')
                       )
                       select case
                                  when count(*) = 0 then 'no worker'
                                  when bool_and(jsonb_typeof(routes) = 'array' and not routes ? waits_for.route)
                                      then 'no worker knows the route'
                                  when rests is not null and not is_due then rests
                                  -- One that knows the route and names nothing takes them, as far as is known.
                                  when bool_or(waits is null and (jsonb_typeof(routes) is distinct from 'array'
                                                                  or routes ? waits_for.route)) then null
                                  else min(waits ->> 'for')
                              end
                         from claimer)
               end;
    end;

comment on function sluice.waits_for is
    'Why a job of this route, project and batch does not go on, from what sluice.hindrances says; rests and is_due: '
    'the reason in its row of sluice.parked, and whether that is over (NULL: it is ready). NULL: nothing is known to '
    'be in its way.';

create or replace view sluice.jobs with (security_barrier) as
select j.id,
       coalesce(r.state, case when i.job_id is not null then 'running' else 'queued' end) as state,
       j.route, j.project, j.batch, j.custom_id, j.priority, j.run_at, j.deadline, j.max_attempts,
       j.idempotency_key, j.metadata, j.created_at, r.finished_at,
       coalesce(r.attempts, i.attempts, p.attempts, q.attempts, 0::smallint) as attempts,
       case when r.job_id is null then p.run_at end as waits_until,
       case when r.job_id is null and i.job_id is null then
           case when p.job_id is null and q.job_id is null then 'no queue'
                else sluice.waits_for((select h.claimers from sluice.hindrances h),
                                      (select h.paused from sluice.hindrances h), j.route, j.project, j.batch,
                                      p.reason, p.run_at <= now())
           end
       end as waits_for,
       j.request
  from sluice.job j
       left join sluice.result r on r.job_id = j.id
       left join sluice.inflight i on i.job_id = j.id
       left join sluice.parked p on p.job_id = j.id
       left join sluice.ready q on q.flow = any (sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by))
             and q.prio = -(j.priority::integer)
             and q.job_id = j.id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

grant execute on function sluice.waits_for to public;
