-- A job that waits may be sent along another route, or get another priority: for the roles that change jobs of all
-- logins.
--
-- Workers of earlier versions go on beside it: they read the route and the priority with the job, as before.
set local lock_timeout = '5s';

-- The row of the queue is taken first, so that no worker begins the job in between; the job's own row follows it. What
-- was spent so far stays with the route that it was spent for.
create function sluice.send_along(job bigint, route text, priority smallint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    held record;
    is_waiting boolean;
    tries integer := 0;
    next_round smallint;
begin
    if octet_length(send_along.route) > sluice.most_bytes('route') then
        raise check_violation using
            message = format('route: is %s bytes long; expected at most %s', octet_length(send_along.route),
                             sluice.most_bytes('route'));
    end if;
    if send_along.priority not between -1000 and 1000 then
        raise check_violation using
            message = format('priority: expected a number from -1000 to 1000, found %s', send_along.priority);
    end if;
    select j.route, j.project, j.batch, j.enqueued_by, j.priority, j.run_at into spec
      from sluice.job j where j.id = send_along.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', send_along.job);
    end if;
    if not sluice.may_change_all() then
        raise insufficient_privilege using
            message = 'only a login that may change the jobs of all logins sends jobs along another route',
            hint = 'The owner of the schema and members of sluice_worker may.';
    end if;
    if spec.route = send_along.route and spec.priority = send_along.priority then
        return false;
    end if;
    -- A job moves between the tables while we look: each look is a new snapshot, so a few are enough.
    while tries < 5 loop
        tries := tries + 1;
        is_waiting := true;
        delete from sluice.ready r
         where r.flow = any (sluice.flows_of(spec.route, spec.project, spec.batch, spec.enqueued_by))
           and r.prio = -(spec.priority::integer)
           and r.job_id = send_along.job
        returning r.attempts, r.crashes, r.round, null::timestamptz as run_at, null::text as reason into held;
        if not found then
            delete from sluice.parked p where p.job_id = send_along.job
            returning p.attempts, p.crashes, p.round, p.run_at, p.reason into held;
            is_waiting := found;
        end if;
        exit when is_waiting;
        if exists (select from sluice.result r where r.job_id = send_along.job) then
            return false;
        end if;
        if exists (select from sluice.inflight i where i.job_id = send_along.job) then
            raise object_in_use using
                message = format('job %s is in the hands of a worker and cannot be changed now', send_along.job),
                hint = 'Try again when it is back in the queue.';
        end if;
    end loop;
    if not is_waiting then
        raise object_in_use using
            message = format('job %s changes hands all the time, or is in no queue', send_along.job),
            hint = 'Try again; sluice doctor says whether it is in no queue.';
    end if;
    -- Another route is a new round: attempts at the former one stay on the ledger and do not count towards its limit.
    next_round := case when spec.route = send_along.route then held.round else held.round + 1 end;
    update sluice.job j set route = send_along.route, priority = send_along.priority where j.id = send_along.job;
    if spec.route <> send_along.route then
        delete from sluice.following f where f.job_id = send_along.job;
        if spec.batch is not null then
            insert into sluice.tally (hour, route, project, batch, login, enqueued)
                 values (date_trunc('hour', now()), spec.route, spec.project, spec.batch, spec.enqueued_by, -1),
                        (date_trunc('hour', now()), send_along.route, spec.project, spec.batch, spec.enqueued_by, 1);
        end if;
    end if;
    if held.reason in ('scheduled', 'paused') or (held.reason is not null and spec.route = send_along.route) then
        insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
             values (send_along.job, held.run_at,
                     sluice.flow_of(send_along.route, spec.project, spec.batch, spec.enqueued_by),
                     -send_along.priority, held.attempts, held.crashes, next_round, held.reason);
    else
        insert into sluice.ready (flow, prio, job_id, attempts, crashes, round)
             values (sluice.flow_of(send_along.route, spec.project, spec.batch, spec.enqueued_by),
                     -send_along.priority, send_along.job, held.attempts, held.crashes, next_round);
    end if;
    return true;
end
$$;

comment on function sluice.send_along(bigint, text, smallint) is
    'Gives a job that waits another route and priority: true. One that has ended, or has both already, stays as it is: '
    'false. One that a worker has is an error (object_in_use).';

create function sluice.may_change_all() returns boolean
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    -- No login has this name: what remains are the roles that change the jobs of all.
    select sluice.may_change('')
$$;

comment on function sluice.may_change_all is 'Whether this login may change the jobs of all logins.';

create function sluice.move(job bigint, route text) returns boolean
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select sluice.send_along($1, $2, (select j.priority from sluice.job j where j.id = $1))
$$;

comment on function sluice.move(bigint, text) is
    'Sends a job that waits along another route: true. It begins anew there. One that has ended or is on that route '
    'already stays as it is: false. One that a worker has is an error (object_in_use).';

create function sluice.reprioritize(job bigint, priority integer) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if reprioritize.priority not between -1000 and 1000 then
        raise check_violation using
            message = format('priority: expected a number from -1000 to 1000, found %s', reprioritize.priority);
    end if;
    return sluice.send_along(reprioritize.job, (select j.route from sluice.job j where j.id = reprioritize.job),
                             reprioritize.priority::smallint);
end
$$;

comment on function sluice.reprioritize(bigint, integer) is
    'Gives a job that waits another priority, from -1000 to 1000: true. One that has ended or has it already stays as '
    'it is: false. One that a worker has is an error (object_in_use).';

revoke execute on function sluice.send_along(bigint, text, smallint), sluice.move(bigint, text),
    sluice.reprioritize(bigint, integer), sluice.may_change_all() from public;
