-- A file that takes the place of what a batch has not begun; who has paused a single job, when and why; a notice also
-- of jobs that end without a worker; and the lists of jobs for logins that see only their own.
--
-- Workers of earlier versions go on beside it. What they call takes and returns the same.
set local lock_timeout = '5s';

-- ----------------------------------------------------------------------------------------- who paused a single job
-- Not in sluice.pause, which workers read every second: there may be thousands of jobs. A row says who paused a job
-- last; whether it is paused at all, its place in the queue tells.
create table sluice.paused_job (
    job_id bigint primary key,
    by     text not null default session_user,
    since  timestamptz not null default now(),
    reason text
);

comment on table sluice.paused_job is 'Who has paused a single job last, when and why. Read sluice.parked for whether.';

-- The function is what it was, with the reason as a further argument and the row that it writes.
do $$
declare
    note constant text :=
        E'\n            insert into sluice.paused_job (job_id, reason) values (pause.job, pause.reason)'
        '\n                on conflict (job_id) do update set by = excluded.by, since = excluded.since,'
        '\n                                                   reason = excluded.reason;'
        '\n            return true;\n';
    definition text := pg_get_functiondef('sluice.pause(bigint)'::regprocedure);
    changed text := replace(definition, 'sluice.pause(job bigint)',
                            'sluice.pause(job bigint, reason text default null)');
    noted text := replace(changed, E'\n            return true;\n', note);
begin
    if changed = definition or noted = changed then
        raise exception 'sluice.pause(bigint) is written in a way that this migration does not know';
    end if;
    drop function sluice.pause(bigint);
    execute noted;
end
$$;

comment on function sluice.pause(bigint, text) is
    'Pauses a job that waits: true. One that has ended or is paused already stays as it is: false. One that a worker '
    'has is an error (object_in_use).';

revoke execute on function sluice.pause(bigint, text) from public;

-- Whatever the functions are by now, only the line that forgets the pause is new; and a notice of the job's end.
do $$
declare
    forget constant text := E'\n    delete from sluice.paused_job f where f.job_id = ';
    definition text := pg_get_functiondef('sluice.resume(bigint)'::regprocedure);
    changed text := replace(definition, E'\nbegin\n', E'\nbegin' || forget || E'resume.job;\n');
begin
    if changed = definition then
        raise exception 'sluice.resume(bigint) begins in a way that this migration does not know';
    end if;
    execute changed;
    definition := pg_get_functiondef('sluice.cancel(bigint)'::regprocedure);
    changed := replace(definition, E'\n            return true;\n',
                       replace(forget, E'\n    ', E'\n            ') || E'cancel.job;\n'
                       || E'            perform sluice.tell_ended(cancel.job);\n            return true;\n');
    if changed = definition then
        raise exception 'sluice.cancel(bigint) ends in a way that this migration does not know';
    end if;
    execute changed;
end
$$;

-- In the transaction that cancels, which is the caller's own: a listener hears of it when that has committed. Not where
-- a file is enqueued in place of the cancelled jobs: a transaction with a notice holds up the commits of all others.
create function sluice.tell_ended(job bigint) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('sluice.tells_nothing', true) is distinct from 'on' then
        perform pg_notify('sluice_settled', format('{"jobs":[%s]}', tell_ended.job));
    end if;
end
$$;

comment on function sluice.tell_ended is 'Tells sessions that listen on sluice_settled that a job has ended.';

-- ------------------------------------------------------------------------------------- a file in place of another
-- A thousand jobs at a time. A row that is locked here cannot be claimed in between; one that is locked by another
-- session is being claimed, so its job has begun.
create function sluice.replace_waiting(
    batch text, after bigint, out replaced bigint, out begun bigint, out ended bigint, out last bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    page bigint[];
    waiting bigint[];
begin
    select max(s.id), array_agg(s.id) filter (where s.ended = 0), sum(s.ended) into last, page, ended
      from (select b.id, (select count(*) from sluice.result r where r.job_id = b.id) as ended
              from (select j.id from sluice.job j
                     where j.batch = $1 and j.id > $2 and sluice.may_change(j.enqueued_by)
                     order by j.id limit 1000) b) s;
    waiting := array(select p.job_id from sluice.parked p where p.job_id = any (page) order by p.job_id
                        for update skip locked)
            || array(select r.job_id
                       from (select j.id, j.priority,
                                    sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by) as flows
                               from sluice.job j where j.id = any (page)) s
                            cross join lateral (
                                select q.job_id from sluice.ready q
                                 where q.flow = any (s.flows) and q.prio = -(s.priority::integer) and q.job_id = s.id
                                   for update skip locked) r);
    perform set_config('sluice.tells_nothing', 'on', true);
    select count(*) filter (where sluice.cancel(w.id)) into replaced from unnest(waiting) w(id);
    perform set_config('sluice.tells_nothing', 'off', true);
    -- By this an export knows that no answer of it is missed.
    update sluice.result r set error = 'replaced' where r.job_id = any (waiting) and r.state = 'cancelled';
    ended := coalesce(ended, 0);
    begun := coalesce(cardinality(page), 0) - replaced;
end
$$;

comment on function sluice.replace_waiting is
    'Cancels those of the next thousand jobs of a batch above a number that wait and that this login may cancel, and '
    'notes that they were replaced. begun: those that a worker has; last: the last number that was looked at, NULL at '
    'the end.';

create function sluice.batch_lines_kept(batch text) returns table (custom_id text, digest bytea, is_kept boolean)
    language sql stable security definer set search_path = pg_catalog, pg_temp rows 100000 as $$
    select j.custom_id, sluice.line_digest(j.request, j.metadata),
           not exists (select from sluice.result r where r.job_id = j.id and r.state = 'cancelled')
      from sluice.job j
     where j.batch = $1
       and (j.enqueued_by = session_user
            or ((select sluice.sees_all())
                and not (select exists (select from sluice.job o where o.batch = $1 and o.enqueued_by = session_user))))
     order by j.id
$$;

comment on function sluice.batch_lines_kept is
    'As sluice.batch_lines, with the digest of every line, in order; is_kept: whether the job was not cancelled.';

-- ------------------------------------------------------------------------------------ what a login sees of its jobs
create function sluice.own_listed(batch text, after bigint) returns table (
    job_id bigint, custom_id text, state text, attempts smallint, error_class text, error text, cost_nanos bigint
)
    language sql stable security definer set search_path = pg_catalog, pg_temp rows 5000 as $$
    select p.id, p.custom_id,
           coalesce(r.state, case when exists (select from sluice.inflight i where i.job_id = p.id)
                                  then 'running' else 'queued' end),
           r.attempts, r.error_class, r.error, r.cost_nanos
      from (select b.id, b.custom_id from sluice.job b
             where b.batch = $1 and b.id > $2 and b.enqueued_by = session_user
             order by b.id limit 5000) p
           left join lateral (select * from sluice.result x where x.job_id = p.id limit 1) r on true
     order by p.id
$$;

comment on function sluice.own_listed is
    'The next five thousand jobs of a batch that this login enqueued, with a number above this, and how each stands.';

create function sluice.own_results_of(batch text, jobs bigint[]) returns table (
    job_id bigint, custom_id text, enqueued_by text, metadata text, state text, attempts smallint, provider text,
    model text, repaired boolean, error_class text, error text, cost_nanos bigint, request_id text, response text,
    http_status smallint, code text, message text
)
    language sql stable security definer set search_path = pg_catalog, pg_temp rows 200 as $$
    select j.id, j.custom_id, j.enqueued_by, j.metadata::text, r.state, coalesce(r.attempts, 0::smallint), r.provider,
           r.model, coalesce(r.repaired, false), r.error_class, r.error, r.cost_nanos,
           coalesce(r.request_id, f.request_id), r.response::text, f.http_status, f.code, f.message
      from (select b.id, b.custom_id, b.enqueued_by, b.metadata from sluice.job b
             where b.id = any ($2) and b.batch = $1 and b.enqueued_by = session_user) j
           left join sluice.result r on r.job_id = any (array[j.id])
           left join lateral (
                select a.http_status, a.code, a.message, a.request_id, a.class from sluice.attempt a
                 where a.job_id = j.id and r.state = 'failed' order by a.number desc limit 1) f
             on f.class = r.error_class
     order by j.id
$$;

comment on function sluice.own_results_of is
    'Those of these jobs that are in a batch and that this login enqueued, and how they ended.';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.tell_ended, sluice.replace_waiting, sluice.batch_lines_kept, sluice.own_listed,
    sluice.own_results_of from public;
