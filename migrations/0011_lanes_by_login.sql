-- A lane belongs to a login. A job queues by the hash of its route, project, batch and the login that enqueued it, so
-- that the priority of one login goes before nothing of another's, also in a batch of the same name. And the number is
-- made so that the jobs of a login lie together in sluice.ready, and in those the jobs of a project: a worker finds out
-- who has jobs there by as many steps as there are logins, however many lanes one of them has.
--
-- What is queued stays where it is: such rows keep the numbers of the version before until their jobs have ended, and
-- what looks for the row of a job looks under both numbers. Workers of the version before go on beside it: to them the
-- number is only a number. Where one of them is taken for dead and then brings an answer for a job that waits again, it
-- does not find the row: the answer stands on the ledger, and the job is asked again.

create function sluice.flow_of(route text, project text, batch text, login text) returns bigint
    language sql immutable parallel safe
    -- 16 bits of the login, 8 of the project, 40 of all four. Each hash is the seed of the next, so that names which
    -- only look alike when they are joined do not share a lane.
    return (hashtextextended(login, 0) << 48)
         | ((hashtextextended(project, 0) & 255) << 40)
         | (hashtextextended(route, hashtextextended(project, hashtextextended(coalesce(batch, ''),
                hashtextextended(login, 0)))) & 1099511627775);

comment on function sluice.flow_of(text, text, text, text) is
    'The number under which the jobs of one route, project, batch and login queue. Those of a login lie together.';
comment on function sluice.flow_of(text, text, text) is
    'The number under which jobs queued before they queued by login too; rows keep it until their jobs have ended.';

create function sluice.flows_of(route text, project text, batch text, login text) returns bigint[]
    language sql immutable parallel safe
    return array[sluice.flow_of(route, project, batch, login), sluice.flow_of(route, project, batch)];

comment on function sluice.flows_of is
    'The numbers under which a job may queue: the one of today, and the one before it.';

comment on column sluice.job.priority is
    'Higher goes first, within the same route, project, batch and login. -1000 to 1000.';

-- --------------------------------------------------------------------------------- what puts jobs into the queue
-- As before, but for the number.
create or replace function sluice.job_enqueued() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    keyed bigint;
    later bigint;
    batched bigint;
    bad_priority smallint;
    bad_attempts smallint;
    clash record;
begin
    select count(idempotency_key), count(*) filter (where run_at > now()), count(batch),
           max(priority) filter (where priority not between -1000 and 1000),
           max(max_attempts) filter (where max_attempts <= 0)
      into keyed, later, batched, bad_priority, bad_attempts from fresh;
    if bad_priority is not null then
        raise check_violation using
            message = format('priority: expected a number from -1000 to 1000, found %s', bad_priority),
            schema = 'sluice', table = 'job', column = 'priority', constraint = 'job_priority_check';
    end if;
    if bad_attempts is not null then
        raise check_violation using
            message = format('max_attempts: expected a number above 0, found %s', bad_attempts),
            schema = 'sluice', table = 'job', column = 'max_attempts', constraint = 'job_max_attempts_check';
    end if;
    if keyed > 0 then
        insert into sluice.idempotency (project, key, job_id)
             select project, idempotency_key, id from fresh where idempotency_key is not null order by 1, 2, 3
        on conflict do nothing;
        select f.project, f.idempotency_key, i.job_id into clash
          from fresh f join sluice.idempotency i on i.project = f.project and i.key = f.idempotency_key
         where i.job_id <> f.id limit 1;
        if found then
            raise unique_violation using
                message = format('idempotency key %L of project %L belongs to job %s already',
                                 clash.idempotency_key, clash.project, clash.job_id),
                hint = 'sluice.enqueue(…, idempotency_key => …) returns the first job instead of failing.';
        end if;
    end if;
    insert into sluice.ready (flow, prio, job_id)
         select sluice.flow_of(route, project, batch, enqueued_by), -priority, id from fresh
          where run_at is null or run_at <= now();
    if later > 0 then
        insert into sluice.parked (job_id, run_at, flow, prio, reason)
             select id, run_at, sluice.flow_of(route, project, batch, enqueued_by), -priority, 'scheduled' from fresh
              where run_at > now();
    end if;
    if batched > 0 then
        insert into sluice.tally (hour, route, project, batch, enqueued)
             select date_trunc('hour', now()), route, project, batch, count(*) from fresh
              where batch is not null group by route, project, batch;
    end if;
    return null;
end
$$;


create or replace function sluice.retry(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    ended record;
    last_round smallint;
    tried smallint;
begin
    select j.route, j.project, j.batch, j.enqueued_by, j.priority into spec from sluice.job j where j.id = retry.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', retry.job);
    end if;
    delete from sluice.result r where r.job_id = retry.job and r.state in ('failed', 'cancelled')
    returning r.state, r.provider, r.model, r.error_class, r.round into ended;
    if not found then
        return false;
    end if;
    select greatest(coalesce(max(a.round), 0), ended.round), coalesce(max(a.number), 0) into last_round, tried
      from sluice.attempt a where a.job_id = retry.job and a.round >= 0;
    -- A new round: earlier attempts stay on the ledger and no longer count towards max_attempts.
    insert into sluice.ready (flow, prio, job_id, attempts, round)
         values (sluice.flow_of(spec.route, spec.project, spec.batch, spec.enqueued_by), -spec.priority, retry.job,
                tried, last_round + 1);
    insert into sluice.tally (hour, route, project, batch, provider, model, class, failed, cancelled)
         values (date_trunc('hour', now()), spec.route, spec.project, coalesce(spec.batch, ''),
                 coalesce(ended.provider, ''), coalesce(ended.model, ''), coalesce(ended.error_class, ''),
                 case ended.state when 'failed' then -1 else 0 end, case ended.state when 'cancelled' then -1 else 0 end);
    return true;
end
$$;


create or replace function sluice.queue_unqueued(first bigint, past bigint, out queued bigint, out kept bigint[])
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    found_jobs bigint[];
    good bigint[];
begin
    -- Each statement has to see what was committed before it.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise invalid_parameter_value using message = 'sluice.queue_unqueued needs a transaction that is read committed';
    end if;
    -- Of two who look at once, the second must see what the first has done: after a claim nothing else tells.
    perform pg_advisory_xact_lock(hashtextextended('sluice.unqueued', 0));
    found_jobs := array(select u.job_id from sluice.unqueued(queue_unqueued.first, queue_unqueued.past) u order by 1);
    if found_jobs = '{}' then
        queued := 0;
        kept := '{}';
        return;
    end if;
    -- What the trigger refuses stays where it is.
    good := array(select j.id from sluice.job j
                   where j.id = any (found_jobs) and j.priority between -1000 and 1000
                     and coalesce(j.max_attempts, 1) > 0 order by j.id);
    insert into sluice.idempotency (project, key, job_id)
         select j.project, j.idempotency_key, j.id
           from sluice.job j where j.id = any (good) and j.idempotency_key is not null order by 1, 2, 3
    on conflict do nothing;
    good := array(select j.id
                    from sluice.job j
                         left join sluice.idempotency i on i.project = j.project and i.key = j.idempotency_key
                   where j.id = any (good) and (j.idempotency_key is null or i.job_id = j.id) order by j.id);
    perform sluice.count_unqueued(good);
    -- What is on the ledger of a job goes on counting.
    with tried as (
        select j.id, sluice.flow_of(j.route, j.project, j.batch, j.enqueued_by) as flow, -j.priority as prio, j.run_at,
               coalesce(a.number, 0::smallint) as attempts, coalesce(a.round, 0::smallint) as round
          from sluice.job j
               left join lateral (select max(a.number) as number, max(a.round) as round
                                    from sluice.attempt a where a.job_id = j.id and a.round >= 0) a on true
         where j.id = any (good)
    ), later as (
        insert into sluice.parked (job_id, run_at, flow, prio, attempts, round, reason)
             select id, run_at, flow, prio, attempts, round, 'scheduled' from tried where run_at > now()
    )
    insert into sluice.ready (flow, prio, job_id, attempts, round)
         select flow, prio, id, attempts, round from tried where run_at is null or run_at <= now();
    queued := cardinality(good);
    kept := array(select f.id from unnest(found_jobs) f(id) where f.id <> all (good) order by 1);
end
$$;


-- --------------------------------------------------------------------------------------- what looks for a job's row
-- As before, but under both numbers.
create or replace function sluice.cancel(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    held sluice.inflight;
    tried smallint;
    in_round smallint;
    tries integer := 0;
begin
    select j.route, j.project, j.batch, j.enqueued_by, j.priority into spec from sluice.job j where j.id = cancel.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', cancel.job);
    end if;
    -- A job moves between the three tables while we look: each look is a new snapshot, so a few are enough.
    while tries < 5 loop
        tries := tries + 1;
        delete from sluice.ready r
         where r.flow = any (sluice.flows_of(spec.route, spec.project, spec.batch, spec.enqueued_by))
           and r.prio = -(spec.priority::integer)
           and r.job_id = cancel.job
        returning r.attempts, r.round into tried, in_round;
        if not found then
            delete from sluice.parked p where p.job_id = cancel.job
            returning p.attempts, p.round into tried, in_round;
        end if;
        if not found then
            delete from sluice.inflight i where i.job_id = cancel.job returning i.* into held;
            if found then
                perform sluice.book_open_call(held, 'cancelled');
                insert into sluice.recall (worker, job_id, fence) values (held.worker, cancel.job, held.fence);
                in_round := held.round;
            end if;
        end if;
        if in_round is null and not exists (select from sluice.result r where r.job_id = cancel.job) then
            -- Perhaps it moves; perhaps it never came into the queue. One at a time, and not while it is put there.
            perform pg_advisory_xact_lock(hashtextextended('sluice.unqueued', 0));
            if exists (select from sluice.unqueued(cancel.job, cancel.job + 1)) then
                perform sluice.count_unqueued(array[cancel.job]);
                select coalesce(max(a.round), 0) into in_round
                  from sluice.attempt a where a.job_id = cancel.job and a.round >= 0;
            end if;
        end if;
        if in_round is not null then
            insert into sluice.result (job_id, fence, state, attempts, cost_nanos, uncertain_nanos, round)
                 -- A fence of its own: the worker that had the job finds its own one gone.
                 select cancel.job, nextval('sluice.fence_seq'), 'cancelled', count(*),
                        case when count(*) = count(a.cost_nanos) then coalesce(sum(a.cost_nanos), 0) end,
                        coalesce(sum(a.uncertain_nanos), 0), in_round
                   from sluice.attempt a where a.job_id = cancel.job and a.round >= 0;
            insert into sluice.tally (hour, route, project, batch, cancelled)
                 values (date_trunc('hour', now()), spec.route, spec.project, coalesce(spec.batch, ''), 1);
            return true;
        end if;
        exit when exists (select from sluice.result r where r.job_id = cancel.job);
    end loop;
    return false;
end
$$;


create or replace function sluice.pause(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    held record;
    tries integer := 0;
begin
    select j.route, j.project, j.batch, j.enqueued_by, j.priority into spec from sluice.job j where j.id = pause.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', pause.job);
    end if;
    -- A job moves between the tables while we look: each look is a new snapshot, so a few are enough.
    while tries < 5 loop
        tries := tries + 1;
        delete from sluice.ready r
         where r.flow = any (sluice.flows_of(spec.route, spec.project, spec.batch, spec.enqueued_by))
           and r.prio = -(spec.priority::integer)
           and r.job_id = pause.job
        returning r.flow, r.prio, r.attempts, r.crashes, r.round into held;
        if found then
            insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
                 values (pause.job, '9999-12-31 00:00:00+00', held.flow, held.prio, held.attempts, held.crashes,
                         held.round, 'paused');
            return true;
        end if;
        update sluice.parked p set run_at = '9999-12-31 00:00:00+00', reason = 'paused'
         where p.job_id = pause.job and p.reason <> 'paused';
        if found then
            return true;
        end if;
        if exists (select from sluice.parked p where p.job_id = pause.job)
            or exists (select from sluice.result r where r.job_id = pause.job) then
            return false;
        end if;
        if exists (select from sluice.inflight i where i.job_id = pause.job) then
            raise object_in_use using
                message = format('job %s is in the hands of a worker and cannot be paused now', pause.job),
                hint = 'Cancel it to drop its call, or try again when it is back in the queue.';
        end if;
    end loop;
    if exists (select from sluice.unqueued(pause.job, pause.job + 1)) then
        raise object_not_in_prerequisite_state using
            message = format('job %s is in no queue, since it came in while triggers were off', pause.job),
            hint = 'sluice doctor --repair puts it into the queue.';
    end if;
    raise object_in_use using
        message = format('job %s changes hands all the time and cannot be paused now', pause.job), hint = 'Try again.';
end
$$;


create or replace function sluice.unqueued(first bigint, past bigint) returns table (job_id bigint)
    language sql stable as $$
    select j.id
      from sluice.job j
     where j.id >= $1 and j.id < $2
       and not exists (select from sluice.result r where r.job_id = j.id)
       and not exists (select from sluice.parked p where p.job_id = j.id)
       and not exists (select from sluice.inflight i where i.job_id = j.id)
       and not exists (select from sluice.ready q
                        where q.flow = any (sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by))
             and q.prio = -(j.priority::integer)
                          and q.job_id = j.id)
$$;


create or replace view sluice.jobs with (security_barrier) as
select j.id,
       coalesce(r.state, case when i.job_id is not null then 'running' else 'queued' end) as state,
       j.route, j.project, j.batch, j.custom_id, j.priority, j.run_at, j.deadline, j.max_attempts,
       j.idempotency_key, j.metadata, j.created_at, r.finished_at,
       coalesce(r.attempts, i.attempts, p.attempts, q.attempts, 0::smallint) as attempts,
       case when r.job_id is null then p.run_at end as waits_until,
       case when r.job_id is null and i.job_id is null then
           case when p.job_id is null and q.job_id is null then 'no queue'
                when p.reason = 'paused' then p.reason
                when ('batch', j.batch) in (select u.kind, u.name from sluice.pause u) then 'batch paused'
                when ('route', j.route) in (select u.kind, u.name from sluice.pause u) then 'route paused'
                when ('project', j.project) in (select u.kind, u.name from sluice.pause u) then 'project paused'
                when p.job_id is not null then p.reason
                when q.job_id is not null
                    then sluice.nobody_takes((select c.said from sluice.claimers c), j.route, j.batch)
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

-- ------------------------------------------------------------------------------------------------------ grants
-- They decide nothing, and views that anybody may be given use them.
grant execute on function sluice.flow_of(text, text, text, text), sluice.flows_of to public;
