-- Pausing and resuming by function, for whole routes, projects, batches and providers as for single jobs; and cancelling
-- and retrying all jobs of a route.
--
-- Nothing that there was is changed, so workers of the version before go on beside it.

create function sluice.pause(kind text, name text, reason text default null) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if pause.kind is null or pause.kind not in ('route', 'project', 'batch', 'provider') then
        raise invalid_parameter_value using
            message = format('%L cannot be paused: expected route, project, batch or provider', pause.kind),
            hint = 'A single job is paused by its number: select sluice.pause(5).';
    end if;
    if coalesce(pause.name, '') = '' then
        raise invalid_parameter_value using message = format('expected the name of a %s', pause.kind);
    end if;
    insert into sluice.pause (kind, name, reason) values (pause.kind, pause.name, pause.reason) on conflict do nothing;
    return found;
end
$$;

comment on function sluice.pause(text, text, text) is
    'Pauses a route, project, batch or provider: no more of its calls are started, those under way go on. False when it was paused already.';

create function sluice.resume(kind text, name text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if resume.kind is null or resume.kind not in ('route', 'project', 'batch', 'provider') then
        raise invalid_parameter_value using
            message = format('%L cannot be resumed: expected route, project, batch or provider', resume.kind),
            hint = 'A single job is resumed by its number: select sluice.resume(5).';
    end if;
    delete from sluice.pause p where p.kind = resume.kind and p.name = resume.name;
    return found;
end
$$;

comment on function sluice.resume(text, text) is
    'Lets a paused route, project, batch or provider go on. False when it was not paused.';

-- A paused job is parked until the end of the year 9999. Not until infinity, which is no time to the programs that read
-- when the next parked job is due, workers of the version before among them.
create function sluice.pause(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    held record;
    tries integer := 0;
begin
    select j.route, j.project, j.batch, j.priority into spec from sluice.job j where j.id = pause.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', pause.job);
    end if;
    -- A job moves between the tables while we look: each look is a new snapshot, so a few are enough.
    while tries < 5 loop
        tries := tries + 1;
        delete from sluice.ready r
         where r.flow = sluice.flow_of(spec.route, spec.project, spec.batch) and r.prio = -spec.priority
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
    raise object_in_use using
        message = format('job %s changes hands all the time and cannot be paused now', pause.job), hint = 'Try again.';
end
$$;

comment on function sluice.pause(bigint) is
    'Pauses a job that waits: true. One that has ended or is paused already stays as it is: false. One that a worker has is an error (object_in_use).';

create function sluice.resume(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    held record;
    starts timestamptz;
begin
    select j.run_at into starts from sluice.job j where j.id = resume.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', resume.job);
    end if;
    if starts > now() then
        update sluice.parked p set run_at = starts, reason = 'scheduled'
         where p.job_id = resume.job and p.reason = 'paused';
        return found;
    end if;
    delete from sluice.parked p where p.job_id = resume.job and p.reason = 'paused'
    returning p.flow, p.prio, p.attempts, p.crashes, p.round into held;
    if not found then
        return false;
    end if;
    -- What it waited for before is found out again; what was tried is on the ledger.
    insert into sluice.ready (flow, prio, job_id, attempts, crashes, round)
         values (held.flow, held.prio, resume.job, held.attempts, held.crashes, held.round);
    return true;
end
$$;

comment on function sluice.resume(bigint) is
    'Lets a paused job go on, at its run_at if that lies ahead: true. One that is not paused: false.';

create function sluice.cancel(kind text, name text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if cancel.kind = 'batch' then
        return sluice.cancel(cancel.name);
    elsif cancel.kind = 'route' then
        -- Materialized, or the planner might cancel first and look at the route afterwards.
        return (with open as materialized (
                    select o.job_id
                      from (select r.job_id from sluice.ready r union all select p.job_id from sluice.parked p
                            union all select i.job_id from sluice.inflight i) o
                           cross join lateral (select b.route from sluice.job b where b.id = o.job_id limit 1) j
                     where j.route = cancel.name order by o.job_id)
                select count(*) from open where sluice.cancel(open.job_id));
    end if;
    raise invalid_parameter_value using
        message = format('the jobs of %L cannot be cancelled together: expected batch or route', cancel.kind);
end
$$;

comment on function sluice.cancel(text, text) is
    'Cancels every unfinished job of a batch or a route; returns how many.';

create function sluice.retry(kind text, name text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if retry.kind = 'batch' then
        return sluice.retry(retry.name);
    elsif retry.kind = 'route' then
        return (with ended as materialized (
                    select r.job_id
                      from sluice.result r
                           cross join lateral (select b.route from sluice.job b where b.id = r.job_id limit 1) j
                     where r.state = 'failed' and j.route = retry.name order by r.job_id)
                select count(*) from ended where sluice.retry(ended.job_id));
    end if;
    raise invalid_parameter_value using
        message = format('the jobs of %L cannot be retried together: expected batch or route', retry.kind);
end
$$;

comment on function sluice.retry(text, text) is
    'Retries every failed or cancelled job of a batch, or every failed job of a route; returns how many.';

revoke execute on function sluice.pause(text, text, text), sluice.pause(bigint), sluice.resume(text, text),
    sluice.resume(bigint), sluice.cancel(text, text), sluice.retry(text, text) from public;
do $$
begin
    if exists (select from pg_roles where rolname = 'sluice_worker') then
        grant execute on function sluice.pause(text, text, text), sluice.pause(bigint), sluice.resume(text, text),
            sluice.resume(bigint), sluice.cancel(text, text), sluice.retry(text, text) to sluice_worker;
    end if;
end
$$;
