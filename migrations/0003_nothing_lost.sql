-- Every call that is under way is in the database, so that whoever takes over from a dead worker can name it.
--
-- A worker opens a call before it makes it: one update of the row in inflight, with its fence. Whose row is gone makes no
-- call. Whoever takes the row away (rescue, cancel, an answer that came late) books the call in its worker's place; should
-- the worker live and tell what came of the call, that replaces the placeholder.
--
-- Safe with workers of 0.1.0 running: they open no calls, so nothing is booked in their place; everything else is as it was.

set local lock_timeout = '5s';

alter table sluice.inflight
    add column call_number   smallint,
    add column call_provider text,
    add column call_model    text,
    add column call_rung     smallint,
    add column call_started  timestamptz,
    add column call_worst    bigint;
-- None of these columns is in an index: with room in the page the update is a heap-only one.
alter table sluice.inflight set (fillfactor = 50);

comment on column sluice.inflight.call_number is
    'The attempt that is or was last under way under this claim; NULL before the first. A row of the ledger with this claim''s fence and this number says how it ended.';
comment on column sluice.inflight.call_worst is 'What that call may cost at most, in billionths of a dollar; NULL when the price is unknown.';

alter table sluice.attempt add column placeholder boolean not null default false;

comment on column sluice.attempt.placeholder is
    'Booked in the place of a worker that died, or whose job was taken away, during the call: what came of it is not known, and may yet be told.';

-- Rounds never repeat: a retry goes on from the round that ended, whether or not anything was booked in it.
alter table sluice.result add column round smallint not null default 0;

-- Which database this is: a spool on a worker's disk belongs to one.
create table sluice.installation (
    id uuid primary key default gen_random_uuid()
);
insert into sluice.installation default values;

comment on table sluice.installation is 'One row: the identity of this installation, by which workers recognise their spools.';

-- ------------------------------------------------------------------------------------------------- functions
create function sluice.book_open_call(held sluice.inflight, why text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    took integer;
begin
    if held.call_number is null then
        return false;
    end if;
    took := least(greatest(extract(epoch from now() - held.call_started) * 1000, 0), 2147483647)::integer;
    insert into sluice.attempt (job_id, fence, number, round, provider, model, rung, started_at, ended_at, total_ms,
                                accepted, class, detail, message, usage_source, cost_nanos, uncertain_nanos, placeholder)
         values (held.job_id, held.fence, held.call_number, held.round, held.call_provider, held.call_model,
                 held.call_rung, held.call_started, now(), took, false, 'abandoned', why,
                 case why when 'worker_died' then 'the worker died or was cut off during the call'
                          when 'cancelled' then 'the job was cancelled during the call'
                          when 'fault' then 'a fault in Sluice itself during the call'
                          else 'another answer came for the job during the call' end,
                 'unknown', case when held.call_worst is not null then 0 end, coalesce(held.call_worst, 0), true)
    -- Its worker has told already how it ended, and had gone on to something else.
    on conflict do nothing;
    if not found then
        return false;
    end if;
    select j.route, j.project, coalesce(j.batch, '') as batch into spec from sluice.job j where j.id = held.job_id;
    insert into sluice.tally (hour, route, project, batch, provider, model, class, detail, attempts, uncertain_nanos,
                              unpriced, total_ms)
         values (date_trunc('hour', now()), spec.route, spec.project, spec.batch, held.call_provider, held.call_model,
                 'abandoned', why, 1, coalesce(held.call_worst, 0), case when held.call_worst is null then 1 else 0 end,
                 took);
    return true;
end
$$;

comment on function sluice.book_open_call is
    'Books the call that is under way under a claim in its worker''s place: true. Nothing is under way, or how it ended is booked already: false.';

create or replace function sluice.cancel(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    held sluice.inflight;
    tried smallint;
    in_round smallint;
    tries integer := 0;
begin
    select j.route, j.project, j.batch, j.priority into spec from sluice.job j where j.id = cancel.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', cancel.job);
    end if;
    -- A job moves between the three tables while we look: each look is a new snapshot, so a few are enough.
    while tries < 5 loop
        tries := tries + 1;
        delete from sluice.ready r
         where r.flow = sluice.flow_of(spec.route, spec.project, spec.batch) and r.prio = -spec.priority
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
        if in_round is not null then
            insert into sluice.result (job_id, fence, state, attempts, cost_nanos, uncertain_nanos, round)
                 -- A fence of its own: the worker that had the job finds its own one gone.
                 select cancel.job, nextval('sluice.fence_seq'), 'cancelled', count(*),
                        case when count(*) = count(a.cost_nanos) then coalesce(sum(a.cost_nanos), 0) end,
                        coalesce(sum(a.uncertain_nanos), 0), in_round
                   from sluice.attempt a where a.job_id = cancel.job;
            insert into sluice.tally (hour, route, project, batch, cancelled)
                 values (date_trunc('hour', now()), spec.route, spec.project, coalesce(spec.batch, ''), 1);
            return true;
        end if;
        exit when exists (select from sluice.result r where r.job_id = cancel.job);
    end loop;
    return false;
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
    select j.route, j.project, j.batch, j.priority into spec from sluice.job j where j.id = retry.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', retry.job);
    end if;
    delete from sluice.result r where r.job_id = retry.job and r.state in ('failed', 'cancelled')
    returning r.state, r.provider, r.model, r.error_class, r.round into ended;
    if not found then
        return false;
    end if;
    select greatest(coalesce(max(a.round), 0), ended.round), coalesce(max(a.number), 0) into last_round, tried
      from sluice.attempt a where a.job_id = retry.job;
    -- A new round: earlier attempts stay on the ledger and no longer count towards max_attempts.
    insert into sluice.ready (flow, prio, job_id, attempts, round)
         values (sluice.flow_of(spec.route, spec.project, spec.batch), -spec.priority, retry.job, tried, last_round + 1);
    insert into sluice.tally (hour, route, project, batch, provider, model, class, failed, cancelled)
         values (date_trunc('hour', now()), spec.route, spec.project, coalesce(spec.batch, ''),
                 coalesce(ended.provider, ''), coalesce(ended.model, ''), coalesce(ended.error_class, ''),
                 case ended.state when 'failed' then -1 else 0 end, case ended.state when 'cancelled' then -1 else 0 end);
    return true;
end
$$;

-- ------------------------------------------------------------------------------------------------------ views
create or replace view sluice.attempts with (security_barrier) as
select a.job_id, a.number, a.round, a.provider, a.model, a.rung, a.started_at, a.ended_at, a.first_byte_ms, a.total_ms,
       a.accepted, a.class, a.detail, a.http_status, a.code, a.message, a.retry_at, a.request_id, a.model_served, a.finish,
       a.usage, a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens, a.output_tokens,
       a.reasoning_tokens, round(a.cost_nanos / 1e9, 9) as cost, round(a.uncertain_nanos / 1e9, 9) as uncertain_cost,
       a.price, a.decision, a.answer, j.route, j.project, j.batch, a.placeholder
  from sluice.attempt a join sluice.job j on j.id = a.job_id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

-- ----------------------------------------------------------------------------------------------------- grants
revoke execute on function sluice.book_open_call from public;
do $$
begin
    if to_regrole('sluice_worker') is not null then
        grant select on sluice.installation to sluice_worker;
        grant execute on function sluice.book_open_call to sluice_worker;
    end if;
    if to_regrole('sluice_reporter') is not null then
        grant select on sluice.installation to sluice_reporter;
    end if;
end
$$;
