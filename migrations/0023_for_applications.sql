-- What an application needs beside insert and select: to wait for one answer, to read an answer as JSON, and to cancel,
-- watch and export, with the role sluice_enqueuer alone, what it has enqueued itself.
--
-- Workers of earlier versions go on beside it. What they call takes and returns the same.
set local lock_timeout = '5s';

-- ------------------------------------------------------------------------------------------------- whose job it is
-- A job of another login is to an enqueuer what it is everywhere else: there is none. Whatever the function is by now,
-- only the question which job is meant changes.
do $$
declare
    definition text := pg_get_functiondef('sluice.cancel(bigint)'::regprocedure);
    changed text := replace(definition, 'where j.id = cancel.job;',
                            'where j.id = cancel.job and sluice.may_change(j.enqueued_by);');
begin
    if changed = definition then
        raise exception 'sluice.cancel(bigint) looks for its job in a way that this migration does not know';
    end if;
    execute changed;
end
$$;

create or replace function sluice.cancel(batch text) returns bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    -- Materialized, or the planner might cancel first and look whose job it is afterwards.
    with open as materialized (
        select j.id from sluice.job j
         where j.batch = $1 and sluice.may_change(j.enqueued_by)
           and not exists (select from sluice.result r where r.job_id = j.id)
         order by j.id)
    select count(*) from open where sluice.cancel(open.id);
$$;

comment on function sluice.cancel(text) is
    'Cancels every unfinished job of a batch, of those that this login may cancel; returns how many.';

create or replace function sluice.cancel(kind text, name text) returns bigint
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
                           cross join lateral (select b.route, b.enqueued_by from sluice.job b
                                                where b.id = o.job_id limit 1) j
                     where j.route = cancel.name and sluice.may_change(j.enqueued_by) order by o.job_id)
                select count(*) from open where sluice.cancel(open.job_id));
    end if;
    raise invalid_parameter_value using
        message = format('the jobs of %L cannot be cancelled together: expected batch or route', cancel.kind);
end
$$;

comment on function sluice.cancel(text, text) is
    'Cancels every unfinished job of a batch or a route, of those that this login may cancel; returns how many.';

-- The number is written into the statement, so that the planner knows it.
create function sluice.cancellable(batch text, after bigint) returns table (job_id bigint)
    language sql stable security definer set search_path = pg_catalog, pg_temp rows 1000 as $$
    select j.id from sluice.job j
     where j.batch = $1 and j.id > $2 and sluice.may_change(j.enqueued_by)
       and not exists (select from sluice.result r where r.job_id = j.id)
     order by j.id limit 1000
$$;

comment on function sluice.cancellable is
    'The next thousand unfinished jobs of a batch that this login may cancel, with a number above this.';

-- ----------------------------------------------------------------------------------- what a login sees of its batches
-- The sums are of all logins, so these are counted: some seconds for a million jobs.
create function sluice.own_batch(
    batch text, out jobs bigint, out succeeded bigint, out failed bigint, out cancelled bigint, out attempts bigint,
    out cost_nanos bigint, out waste_nanos bigint, out uncertain_nanos bigint, out unpriced bigint,
    out first_at timestamptz, out last_at timestamptz, out paused boolean, out pause_reason text,
    out max_failed numeric
)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    select count(*), count(*) filter (where r.state = 'succeeded'), count(*) filter (where r.state = 'failed'),
           count(*) filter (where r.state = 'cancelled'), min(j.created_at),
           greatest(max(j.created_at), max(r.finished_at))
      into jobs, succeeded, failed, cancelled, first_at, last_at
      from sluice.job j left join sluice.result r on r.job_id = j.id
     where j.batch = own_batch.batch and j.enqueued_by = session_user;
    select count(*), sluice.capped(coalesce(sum(a.cost_nanos), 0)),
           sluice.capped(coalesce(sum(a.cost_nanos) filter (where not a.accepted), 0)),
           sluice.capped(coalesce(sum(a.uncertain_nanos), 0)), count(*) filter (where a.cost_nanos is null)
      into attempts, cost_nanos, waste_nanos, uncertain_nanos, unpriced
      from sluice.job j join sluice.attempt a on a.job_id = j.id
     where j.batch = own_batch.batch and j.enqueued_by = session_user;
    select true, p.reason into paused, pause_reason
      from sluice.pause p where p.kind = 'batch' and p.name = own_batch.batch;
    paused := coalesce(paused, false);
    select s.max_failed into max_failed from sluice.stop_loss s where s.batch = own_batch.batch;
end
$$;

comment on function sluice.own_batch is
    'What has become of the jobs that this login enqueued in a batch, and what they cost, in billionths of a dollar.';

create function sluice.own_batch_waits_for(batch text) returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    -- Jobs that each wait for something of their own have no common reason. A few of them tell.
    select case when count(distinct coalesce(v.waits_for, '')) = 1 then min(v.waits_for) end
      from sluice.jobs v
     where v.id = any (array(select j.id from sluice.job j
                              where j.batch = $1 and j.enqueued_by = session_user
                                and not exists (select from sluice.result r where r.job_id = j.id)
                              order by j.id limit 20))
$$;

comment on function sluice.own_batch_waits_for is
    'What the first jobs that this login enqueued in a batch, and that have not ended, wait for; NULL: nothing that is '
    'known, or not the same for all.';

create function sluice.own_batches() returns table (batch text)
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select s.batch from (
        select j.batch, max(j.id) as last from (
            select b.batch, b.id from sluice.job b
             where b.batch is not null and b.enqueued_by = session_user order by b.id desc limit 10000) j
         group by j.batch order by 2 desc limit 5) s
$$;

comment on function sluice.own_batches is 'The batches of this login''s latest jobs, the latest first.';

create function sluice.own_results(batch text, after bigint) returns table (
    job_id bigint, custom_id text, enqueued_by text, metadata text, state text, attempts smallint, provider text,
    model text, repaired boolean, error_class text, error text, cost_nanos bigint, request_id text, response text,
    http_status smallint, code text, message text
)
    language sql stable security definer set search_path = pg_catalog, pg_temp rows 1000 as $$
    select j.id, j.custom_id, j.enqueued_by, j.metadata::text, r.state, coalesce(r.attempts, 0::smallint), r.provider,
           r.model, coalesce(r.repaired, false), r.error_class, r.error, r.cost_nanos,
           coalesce(r.request_id, f.request_id), r.response::text, f.http_status, f.code, f.message
      from (select b.id, b.custom_id, b.enqueued_by, b.metadata from sluice.job b
             where b.batch = $1 and b.id > $2 and b.enqueued_by = session_user
             order by b.id limit 1000) j
           left join sluice.result r on r.job_id = any (array[j.id])
           left join lateral (
                select a.http_status, a.code, a.message, a.request_id, a.class from sluice.attempt a
                 where a.job_id = j.id and r.state = 'failed' order by a.number desc limit 1) f
             on f.class = r.error_class
     order by j.id
$$;

comment on function sluice.own_results is
    'The next thousand jobs of a batch that this login enqueued, with a number above this, and how they ended.';

-- ------------------------------------------------------------------------------------------------- answers as JSON
create function sluice.as_json(answer text) returns jsonb
    language plpgsql immutable strict set search_path = pg_catalog, pg_temp as $$
begin
    -- Most answers are prose: they are told by their first character, without an error that has to be caught.
    if as_json.answer !~ '^\s*[[{"0-9tfn-]' then
        return null;
    end if;
    return as_json.answer::jsonb;
-- No JSON; a character that text has no room for (\u0000); nested too deep or too large.
exception when data_exception or program_limit_exceeded or out_of_memory then
    return null;
end
$$;

comment on function sluice.as_json is 'A text as JSON; NULL when it is none. Never an error.';

create or replace view sluice.results with (security_barrier) as
select r.job_id, j.custom_id, j.batch, j.route, j.project, r.state,
       r.response #>> '{choices,0,message,content}' as answer,
       r.provider, r.model, r.attempts, r.repaired, r.error_class, r.error,
       round(r.cost_nanos / 1e9, 9) as cost, round(r.uncertain_nanos / 1e9, 9) as uncertain_cost,
       r.input_tokens, r.output_tokens, j.created_at, r.finished_at, r.request_id, j.metadata, r.response,
       j.enqueued_by, sluice.as_json(r.response #>> '{choices,0,message,content}') as answer_json
  from sluice.result r join sluice.job j on j.id = r.job_id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.results.answer_json is 'The answer as JSON; NULL when it is none.';

-- --------------------------------------------------------------------------------------------------------- waiting
create function sluice.wait(job bigint, timeout interval default '30 seconds') returns setof sluice.results
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp rows 1 as $$
declare
    most constant interval := '1 minute';
    until timestamptz;
    pause double precision := 0.01;
    left_over double precision;
    born bigint;
    me bigint := pg_current_xact_id_if_assigned()::text::bigint;
begin
    if wait.timeout is null or wait.timeout > most then
        raise invalid_parameter_value using
            message = format('timeout: is %s; expected at most %s', coalesce(wait.timeout::text, 'NULL'), most),
            hint = 'No row means: not yet. Then ask again, in a new statement: one that runs for long keeps the server '
                   'from cleaning up behind the queue.';
    end if;
    -- Each statement below looks anew, and sees what was committed meanwhile; but not here.
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise invalid_transaction_state using
            message = format('sluice.wait would wait in vain: this transaction is %s and sees only what was committed '
                             'before it began', current_setting('transaction_isolation')),
            hint = 'Commit first, or wait in a transaction that is read committed.';
    end if;
    select j.xmin::text::bigint into born
      from sluice.job j
     where j.id = wait.job and ((select sluice.sees_all()) or j.enqueued_by = session_user);
    if not found then
        raise no_data_found using message = format('there is no job %s', wait.job),
            hint = 'A job of another transaction is there when that has committed.';
    end if;
    -- Of this transaction, or of a savepoint in it, whose number is a little higher. Of a row that can be seen, only
    -- such a transaction can still be under way.
    if me is not null and (born - me) & 4294967295 < 2147483648 then
        begin
            if pg_xact_status((me + ((born - me) & 4294967295))::text::xid8) = 'in progress' then
                raise invalid_transaction_state using
                    message = format('sluice.wait would wait in vain: job %s was enqueued in this transaction, and no '
                                     'worker sees it before it is committed', wait.job),
                    hint = 'Commit first, then wait.';
            end if;
        -- The number is one that no transaction has had yet: the row is very old.
        exception when invalid_parameter_value then null;
        end;
    end if;
    until := clock_timestamp() + greatest(wait.timeout, interval '0');
    loop
        if exists (select from sluice.result r where r.job_id = wait.job) then
            return query select s.* from sluice.results s where s.job_id = wait.job;
            -- Gone again: it was put back into the queue in between.
            if found then
                return;
            end if;
        end if;
        left_over := extract(epoch from until - clock_timestamp());
        exit when left_over <= 0;
        perform pg_sleep(least(pause, left_over));
        -- 10 ms to a quarter of a second: a call takes longer than that, as a rule.
        pause := least(pause * 1.5, 0.25);
    end loop;
end
$$;

comment on function sluice.wait is
    'Waits until a job has ended and returns its row of sluice.results; none when it has not ended in this time. Needs '
    'a job whose transaction has committed, and a transaction that is read committed.';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.cancellable, sluice.own_batch, sluice.own_batch_waits_for, sluice.own_batches,
    sluice.own_results, sluice.wait from public;
grant execute on function sluice.as_json to public;
