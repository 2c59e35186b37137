-- A route may answer a job with the answer that an earlier job with the same request got (`cache` of a route). The same
-- request that waits or runs at the same time is bought once: the first job to ask for it leads, the others follow.
--
-- The tables are written only by jobs of routes with a cache. Workers of earlier versions do not know them: they buy
-- every answer, and their answers are not found here.
set local lock_timeout = '5s';

alter table sluice.result add column answered_from bigint;

comment on column sluice.result.answered_from is
    'The job whose answer this is: it had the same request, and its route has a cache. NULL: the answer is its own.';

-- Answers to be had again, by login and request. The key is a digest of the request and of what its route asks of an
-- answer; no login finds the answers of another one.
create table sluice.answered (
    login       text not null,
    key         bytea not null,
    job_id      bigint not null,
    answered_at timestamptz not null default now(),
    primary key (login, key)
) with (fillfactor = 80);

create index answered_job on sluice.answered (job_id);

comment on table sluice.answered is 'Requests of routes with a cache that were answered: by which job, and when.';

-- Requests that are being asked, and the jobs that wait for their answers.
create table sluice.asking (
    login  text not null,
    key    bytea not null,
    job_id bigint not null,
    primary key (login, key)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, fillfactor = 50);

create table sluice.following (
    job_id bigint primary key,
    leader bigint not null
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, fillfactor = 50);

create index following_leader on sluice.following (leader);

comment on table sluice.asking is 'Requests of routes with a cache that a job is asking: the others with it wait.';
comment on table sluice.following is 'Jobs that wait for the answer of another job with the same request.';

-- What was not bought. One row for each settlement and route with such answers.
create table sluice.cache_use (
    id          bigint generated always as identity primary key,
    hour        timestamptz not null,
    route       text not null,
    project     text not null,
    answers     bigint not null,
    saved_nanos bigint not null,
    unpriced    bigint not null
);

create index cache_use_hour on sluice.cache_use (hour);

comment on table sluice.cache_use is
    'Answers that were given again, by hour, route and project, and what their first calls cost; unpriced: answers '
    'whose first cost is unknown.';

-- What a job of a route with a cache does: `answered` (with the answer), `lead` (it asks), `follow` (it waits for the
-- job in `source`).
create function sluice.ask_cache(job bigint, key bytea, since timestamptz, out outcome text, out source bigint,
                                 out provider text, out model text, out input_tokens bigint, out output_tokens bigint,
                                 out cost_nanos bigint, out request_id text, out repaired boolean, out response text)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner text;
    asker bigint;
    leads boolean := false;
begin
    select j.enqueued_by into owner from sluice.job j where j.id = ask_cache.job;
    loop
        -- A result that retention has dropped, or that was removed by hand, is no answer any more.
        select r.job_id, r.provider, r.model, r.input_tokens, r.output_tokens, r.cost_nanos, r.request_id, r.repaired,
               r.response::text
          into source, provider, model, input_tokens, output_tokens, cost_nanos, request_id, repaired, response
          from sluice.answered a
               join sluice.result r on r.job_id = a.job_id and r.state = 'succeeded' and r.response is not null
         where a.login = owner and a.key = ask_cache.key and a.answered_at >= ask_cache.since;
        if found then
            outcome := 'answered';
            delete from sluice.asking a
             where leads and a.login = owner and a.key = ask_cache.key and a.job_id = ask_cache.job;
            return;
        elsif leads then
            outcome := 'lead';
            return;
        end if;
        select a.job_id into asker from sluice.asking a where a.login = owner and a.key = ask_cache.key;
        if asker is null then
            insert into sluice.asking (login, key, job_id) values (owner, ask_cache.key, ask_cache.job)
            on conflict on constraint asking_pkey do nothing;
        -- A leader that has begun, or comes back soon, is worth waiting for. One that was paused, cancelled, or waits
        -- for an hour is not: the next job leads.
        elsif asker <> ask_cache.job
              and (exists (select from sluice.inflight i where i.job_id = asker)
                   or exists (select from sluice.parked p
                               where p.job_id = asker and p.run_at < now() + interval '5 minutes')) then
            insert into sluice.following (job_id, leader) values (ask_cache.job, asker)
            on conflict on constraint following_pkey do update set leader = excluded.leader;
            outcome := 'follow';
            source := asker;
            return;
        else
            update sluice.asking a set job_id = ask_cache.job
             where a.login = owner and a.key = ask_cache.key and a.job_id = asker;
        end if;
        -- An answer may have come since it was looked for: the leader that gave it is gone from `asking`.
        leads := found;
    end loop;
end
$$;

comment on function sluice.ask_cache is
    'For workers: what a job of a route with a cache does, by its request''s key and the oldest answer that it takes.';

-- Notes how jobs of routes with a cache have ended, and wakes those that wait for their answers.
create function sluice.leave_cache(jobs bigint[], keys bytea[], is_answer boolean[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- In the order of their keys, so that two settlements do not wait for each other.
    insert into sluice.answered as a (login, key, job_id)
         select distinct on (j.enqueued_by, e.key) j.enqueued_by, e.key, e.job_id
           from unnest(leave_cache.jobs, leave_cache.keys, leave_cache.is_answer) e(job_id, key, is_answer)
                join sluice.job j on j.id = any (array[e.job_id])
          where e.is_answer
          order by 1, 2, 3 desc
    on conflict on constraint answered_pkey do update set job_id = excluded.job_id, answered_at = excluded.answered_at;
    delete from sluice.asking a
     using (select k.login, k.key
              from (select j.enqueued_by as login, e.key, e.job_id
                      from unnest(leave_cache.jobs, leave_cache.keys) e(job_id, key)
                           join sluice.job j on j.id = any (array[e.job_id])) w
                   join sluice.asking k on k.login = w.login and k.key = w.key and k.job_id = w.job_id
             order by 1, 2 for update of k) done
     where a.login = done.login and a.key = done.key;
    delete from sluice.following f where f.job_id = any (leave_cache.jobs);
    -- Those beyond a thousand look again by themselves.
    with awake as (
        delete from sluice.following f
         where f.job_id in (select w.job_id from sluice.following w where w.leader = any (leave_cache.jobs)
                             order by w.job_id limit 1000 for update skip locked)
        returning f.job_id
    ), due as (
        select p.job_id from sluice.parked p
         where p.job_id in (select a.job_id from awake a) and p.reason <> 'paused' for update skip locked
    )
    update sluice.parked p set run_at = now() from due d where p.job_id = d.job_id and p.run_at > now();
end
$$;

comment on function sluice.leave_cache is
    'For workers: notes how jobs of routes with a cache have ended, and wakes the jobs that wait for their answers.';

revoke execute on function sluice.ask_cache, sluice.leave_cache from public;

create or replace view sluice.results with (security_barrier) as
select r.job_id, j.custom_id, j.batch, j.route, j.project, r.state,
       r.response #>> '{choices,0,message,content}' as answer,
       r.provider, r.model, r.attempts, r.repaired, r.error_class, r.error,
       round(r.cost_nanos / 1e9, 9) as cost, round(r.uncertain_nanos / 1e9, 9) as uncertain_cost,
       r.input_tokens, r.output_tokens, j.created_at, r.finished_at, r.request_id, j.metadata, r.response,
       j.enqueued_by, sluice.as_json(r.response #>> '{choices,0,message,content}') as answer_json, r.answered_from
  from sluice.result r join sluice.job j on j.id = r.job_id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.results.answered_from is
    'The job whose answer this is: it had the same request, and its route has a cache. NULL: the answer is its own.';
