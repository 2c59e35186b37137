-- The queue, the ledger and what people see of them.
--
-- Three rules carry everything here:
--   1. Bodies are written once and never updated: job, result, attempt. They are partitioned by id range, so that
--      old work is dropped by partition and never deleted row by row.
--   2. What churns is narrow: ready, parked, inflight. No foreign keys, no counters, no index beyond the order in
--      which rows are read. Each row of a job that is not finished is in exactly one of these three.
--   3. The state of a job is derived (view sluice.jobs), so there is no status column that every step would rewrite.

create schema if not exists sluice;

comment on schema sluice is
    'Sluice: a persistent job queue for batch AI requests. Insert into sluice.job, read sluice.results.';

-- ---------------------------------------------------------------------------------------------------- roles
-- Roles belong to the whole cluster: another database may have made them already, and a migrating user without
-- CREATEROLE can go on without them (an administrator makes them later, then runs `sluice migrate` again).
do $$
declare
    role_name text;
begin
    foreach role_name in array array['sluice_enqueuer', 'sluice_reporter', 'sluice_worker'] loop
        begin
            execute format('create role %I nologin', role_name);
        exception
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise warning 'role % was not created: %', role_name, sqlerrm;
        end;
    end loop;
end
$$;

-- ------------------------------------------------------------------------------------------------- sequences
create sequence sluice.job_id_seq as bigint;
-- A fence is a worker's right to write for a job. It only has to be unique, so each session may hold a stock.
create sequence sluice.fence_seq as bigint cache 100;

-- ---------------------------------------------------------------------------------------------------- bodies
create table sluice.job (
    id              bigint not null default nextval('sluice.job_id_seq'),
    route           text not null default 'default',
    project         text not null default 'default',
    batch           text,
    custom_id       text,
    priority        smallint not null default 0 check (priority between -1000 and 1000),
    run_at          timestamptz,
    deadline        timestamptz,
    max_attempts    smallint check (max_attempts > 0),
    idempotency_key text,
    enqueued_by     text not null default session_user,
    created_at      timestamptz not null default now(),
    metadata        jsonb,
    request         jsonb compression lz4 not null,
    primary key (id)
) partition by range (id);

-- The unit of progress, export and cancel is the batch; most single jobs have none, and those pay nothing here.
create index job_batch on sluice.job (batch, id) where batch is not null;

comment on table sluice.job is
    'One AI request. Insert (request) is enough; every other column has a default. Rows are never updated.';
comment on column sluice.job.route is 'Which chain of providers, validation rules and patience: [routes.NAME] of the configuration.';
comment on column sluice.job.project is 'Whose money: the label for cost, budgets and fairness.';
comment on column sluice.job.batch is 'Name of the group that is watched, exported and cancelled together.';
comment on column sluice.job.custom_id is 'Your own name for the job; stands on its line of the export.';
comment on column sluice.job.priority is 'Higher goes first, within the same route, project and batch. -1000 to 1000.';
comment on column sluice.job.run_at is 'Not before this instant.';
comment on column sluice.job.deadline is 'No call is started after this instant; the job then fails with class deadline.';
comment on column sluice.job.max_attempts is 'Attempts that count, for this job; otherwise the route says.';
comment on column sluice.job.idempotency_key is
    'Unique per project. A second insert with the same key is refused; sluice.enqueue returns the first job instead.';
comment on column sluice.job.request is
    'An OpenAI chat-completions body, or {"prompt": "…"} as short for one user message.';

create table sluice.result (
    job_id          bigint not null,
    fence           bigint not null,
    state           text not null check (state in ('succeeded', 'failed', 'cancelled')),
    finished_at     timestamptz not null default now(),
    attempts        smallint not null,
    provider        text,
    model           text,
    rung            smallint,
    repaired        boolean not null default false,
    error_class     text,
    error           text,
    cost_nanos      bigint,
    uncertain_nanos bigint not null default 0,
    input_tokens    bigint not null default 0,
    output_tokens   bigint not null default 0,
    request_id      text,
    response        jsonb compression lz4,
    primary key (job_id),
    check ((state = 'failed') = (error_class is not null))
) partition by range (job_id);

create table sluice.attempt (
    job_id             bigint not null,
    fence              bigint not null,
    number             smallint not null,
    round              smallint not null,
    provider           text not null,
    model              text not null,
    rung               smallint,
    started_at         timestamptz not null,
    ended_at           timestamptz not null,
    first_byte_ms      integer,
    total_ms           integer not null,
    accepted           boolean not null,
    class              text,
    detail             text,
    http_status        smallint,
    code               text,
    message            text,
    retry_at           timestamptz,
    request_id         text,
    model_served       text,
    finish             text,
    usage              jsonb,
    usage_source       text not null check (usage_source in ('provider', 'estimated', 'unknown')),
    input_tokens       bigint not null default 0,
    cache_read_tokens  bigint not null default 0,
    cache_write_tokens bigint not null default 0,
    output_tokens      bigint not null default 0,
    reasoning_tokens   bigint not null default 0,
    cost_nanos         bigint,
    uncertain_nanos    bigint not null default 0,
    price              jsonb,
    decision           jsonb,
    answer             jsonb compression lz4,
    -- The same attempt sent twice (a commit whose outcome was unknown) is one row.
    primary key (job_id, fence, number),
    check (accepted = (class is null))
) partition by range (job_id);

-- Attempts are written in the order of time, so a few bytes per hundred pages are enough to find those of a day.
create index attempt_ended_at on sluice.attempt using brin (ended_at) with (autosummarize = on);

comment on table sluice.result is 'How each finished job ended: exactly one row. Read the view sluice.results.';
comment on table sluice.attempt is 'The ledger: one row per call to a provider, whatever came of it. Read sluice.attempts.';
comment on column sluice.attempt.cost_nanos is
    'Billionths of a dollar; NULL when the price is unknown. Frozen together with the price that was used.';
comment on column sluice.attempt.uncertain_nanos is
    'Money that may have been spent beside cost_nanos: the worst case of a call whose end is not known.';
comment on column sluice.attempt.answer is 'The answer that was rejected. An accepted one is in the result.';
comment on column sluice.attempt.decision is 'Why this rung: those before it in the order, and why each was not taken.';

-- ------------------------------------------------------------------------------------------- what churns
-- flow: hash of (route, project, batch), the unit of fairness. A hash needs no row of its own, so two transactions
-- that enqueue the first jobs of one batch never wait for each other.
create table sluice.ready (
    flow     bigint not null,
    prio     smallint not null,        -- the negative of job.priority: index order is claim order
    job_id   bigint not null,
    attempts smallint not null default 0,
    crashes  smallint not null default 0,
    round    smallint not null default 0,
    primary key (flow, prio, job_id)
);

create table sluice.parked (
    job_id   bigint primary key,
    run_at   timestamptz not null,
    flow     bigint not null,
    prio     smallint not null,
    attempts smallint not null default 0,
    crashes  smallint not null default 0,
    round    smallint not null default 0,
    reason   text not null             -- 'scheduled', or what is waited for
);
create index parked_run_at on sluice.parked (run_at);

create table sluice.inflight (
    job_id     bigint primary key,
    fence      bigint not null,
    worker     bigint not null,
    flow       bigint not null,
    prio       smallint not null,
    attempts   smallint not null,
    crashes    smallint not null,
    round      smallint not null,
    claimed_at timestamptz not null default now()
);
create index inflight_worker on sluice.inflight (worker);

-- These three turn over completely all day: vacuum by count, not by share, and never wait for a slow start.
alter table sluice.ready set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = off);
alter table sluice.parked set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    vacuum_truncate = off);
alter table sluice.inflight set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    vacuum_truncate = off);

-- --------------------------------------------------------------------------------------- around the queue
create table sluice.idempotency (
    project    text not null,
    key        text not null,
    job_id     bigint not null,
    created_at timestamptz not null default now(),
    primary key (project, key)
);

create table sluice.worker (
    id          bigint generated always as identity primary key,
    host        text not null,
    pid         integer not null,
    version     text not null,
    started_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now(),
    lease_until timestamptz not null,
    -- live: may act. dead: its lease ran out, others take its jobs. gone: it said good-bye.
    state       text not null default 'live' check (state in ('live', 'dead', 'gone')),
    stats       jsonb not null default '{}'
) with (fillfactor = 50);

comment on table sluice.worker is 'One row per worker process, renewed by one update every few seconds.';

-- Paused things: workers read this table, so a pause is one row however many jobs it stops.
create table sluice.pause (
    kind   text not null check (kind in ('route', 'project', 'batch', 'provider')),
    name   text not null,
    since  timestamptz not null default now(),
    reason text,
    primary key (kind, name)
);

-- Jobs that were cancelled while a worker had them: it reads this and drops the call.
create table sluice.recall (
    worker bigint not null,
    job_id bigint not null,
    fence  bigint not null,
    primary key (worker, job_id, fence)
);

-- Sums by the hour. Every settle appends one row per group to tally, in its own transaction, so that no row is hot
-- and the sums are exactly those of the ledger; upkeep folds them into tally_hour. Read both through sluice.totals.
create table sluice.tally (
    hour             timestamptz not null,
    route            text not null,
    project          text not null,
    batch            text not null default '',
    provider         text not null default '',
    model            text not null default '',
    class            text not null default '',
    detail           text not null default '',
    enqueued         bigint not null default 0,
    succeeded        bigint not null default 0,
    failed           bigint not null default 0,
    cancelled        bigint not null default 0,
    attempts         bigint not null default 0,
    fallbacks        bigint not null default 0,
    input_tokens     bigint not null default 0,
    cached_tokens    bigint not null default 0,
    output_tokens    bigint not null default 0,
    cost_nanos       bigint not null default 0,
    waste_nanos      bigint not null default 0,
    uncertain_nanos  bigint not null default 0,
    unpriced         bigint not null default 0,
    total_ms         bigint not null default 0
);

create table sluice.tally_hour (
    like sluice.tally including defaults,
    primary key (hour, route, project, batch, provider, model, class, detail)
);
create index tally_hour_batch on sluice.tally_hour (batch) where batch <> '';

-- ------------------------------------------------------------------------------------------------- functions
create function sluice.flow_of(route text, project text, batch text) returns bigint
    language sql immutable parallel safe
    return hashtextextended(route || chr(31) || project || chr(31) || coalesce(batch, ''), 0);

comment on function sluice.flow_of is 'The number under which the jobs of one route, project and batch queue.';

-- Partitions are made ahead: enqueueing must never fail for want of one, and never makes one in a user's transaction.
create function sluice.ensure_partitions(ahead integer default 3) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    width constant bigint := 10000000;
    next_id bigint;
    first_part bigint;
    part bigint;
    made integer := 0;
    base text;
begin
    -- One at a time: two workers that start together would make the same table.
    perform pg_advisory_xact_lock(hashtextextended('sluice.ensure_partitions', 0));
    select coalesce(last_value, 1) into next_id from sluice.job_id_seq;
    first_part := next_id / width;
    for part in first_part .. first_part + ahead loop
        foreach base in array array['job', 'result', 'attempt'] loop
            if to_regclass(format('sluice.%I', base || '_p' || part)) is null then
                execute format('create table sluice.%I partition of sluice.%I for values from (%L) to (%L)',
                    base || '_p' || part, base, part * width, (part + 1) * width);
                -- Insert-only: freeze early and in small steps, and keep statistics fresh.
                execute format('alter table sluice.%I set (autovacuum_vacuum_insert_scale_factor = 0.05,
                    autovacuum_analyze_scale_factor = 0.05)', base || '_p' || part);
                made := made + 1;
            end if;
        end loop;
    end loop;
    return made;
end
$$;

-- Whatever way a job comes in (INSERT, INSERT … SELECT, COPY), this puts it into the queue: once per statement.
create function sluice.job_enqueued() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    keyed bigint;
    later bigint;
    batched bigint;
    clash record;
begin
    select count(idempotency_key), count(*) filter (where run_at > now()), count(batch)
      into keyed, later, batched from fresh;
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
         select sluice.flow_of(route, project, batch), -priority, id from fresh
          where run_at is null or run_at <= now();
    if later > 0 then
        insert into sluice.parked (job_id, run_at, flow, prio, reason)
             select id, run_at, sluice.flow_of(route, project, batch), -priority, 'scheduled' from fresh
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

create trigger job_enqueued after insert on sluice.job
    referencing new table as fresh for each statement execute function sluice.job_enqueued();

create function sluice.enqueue(
    request         jsonb,
    route           text default 'default',
    project         text default 'default',
    batch           text default null,
    custom_id       text default null,
    priority        integer default 0,
    run_at          timestamptz default null,
    deadline        timestamptz default null,
    max_attempts    integer default null,
    idempotency_key text default null,
    metadata        jsonb default null
) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    new_id bigint;
    first_id bigint;
begin
    new_id := nextval('sluice.job_id_seq');
    if idempotency_key is not null then
        insert into sluice.idempotency as i (project, key, job_id) values (project, idempotency_key, new_id)
        on conflict do nothing;
        if not found then
            select i.job_id into first_id from sluice.idempotency i
             where i.project = enqueue.project and i.key = enqueue.idempotency_key;
            return first_id;
        end if;
    end if;
    insert into sluice.job (id, route, project, batch, custom_id, priority, run_at, deadline, max_attempts,
                            idempotency_key, metadata, request)
    values (new_id, route, project, batch, custom_id, priority, run_at, deadline, max_attempts,
            idempotency_key, metadata, request);
    return new_id;
end
$$;

comment on function sluice.enqueue is
    'Enqueues one request and returns its job id. With an idempotency key that the project has used before, returns the first job and enqueues nothing.';

create function sluice.enqueue_many(
    jobs    jsonb,
    route   text default 'default',
    project text default 'default',
    batch   text default null
) returns table (ordinal bigint, job_id bigint, existing boolean)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    unknown record;
    ids bigint[];
begin
    if jsonb_typeof(enqueue_many.jobs) is distinct from 'array' then
        raise invalid_parameter_value using
            message = 'jobs: expected a JSON array of objects, each with a "request"';
    end if;
    select e.n, k.key into unknown
      from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
           left join lateral jsonb_object_keys(case jsonb_typeof(e.item) when 'object' then e.item else '{}' end) k(key) on true
     where jsonb_typeof(e.item) <> 'object' or not e.item ? 'request'
        or k.key not in ('request', 'route', 'project', 'batch', 'custom_id', 'priority', 'run_at', 'deadline',
                         'max_attempts', 'idempotency_key', 'metadata')
     limit 1;
    if found then
        raise invalid_parameter_value using
            message = format('jobs[%s]: expected an object with "request" and the columns of sluice.job, found %s',
                             unknown.n - 1, coalesce(quote_literal(unknown.key), 'something else'));
    end if;
    -- Every job has its number before anything is written: so it is told from one that had the key before it, in an
    -- earlier call or in this one.
    select array_agg(nextval('sluice.job_id_seq')) into ids
      from generate_series(1, jsonb_array_length(enqueue_many.jobs));
    insert into sluice.idempotency (project, key, job_id)
         select distinct on (1, 2) coalesce(e.item ->> 'project', enqueue_many.project), e.item ->> 'idempotency_key',
                ids[e.n::integer]
           from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
          where e.item ->> 'idempotency_key' is not null
          order by 1, 2, e.n
    on conflict do nothing;
    -- From here on in statements of their own, so that they see the keys which another session committed meanwhile.
    insert into sluice.job (id, route, project, batch, custom_id, priority, run_at, deadline, max_attempts,
                            idempotency_key, metadata, request)
         select ids[e.n::integer], coalesce(r.route, enqueue_many.route), coalesce(r.project, enqueue_many.project),
                coalesce(r.batch, enqueue_many.batch), r.custom_id, coalesce(r.priority, 0::smallint), r.run_at,
                r.deadline, r.max_attempts, r.idempotency_key, r.metadata, r.request
           from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
                cross join lateral jsonb_to_record(e.item) r(request jsonb, route text, project text, batch text,
                     custom_id text, priority smallint, run_at timestamptz, deadline timestamptz,
                     max_attempts smallint, idempotency_key text, metadata jsonb)
                left join sluice.idempotency i
                       on i.project = coalesce(r.project, enqueue_many.project) and i.key = r.idempotency_key
          where r.idempotency_key is null or i.job_id = ids[e.n::integer]
          order by e.n;
    return query
    select e.n, coalesce(i.job_id, ids[e.n::integer]), coalesce(i.job_id <> ids[e.n::integer], false)
      from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
           left join sluice.idempotency i
                  on i.project = coalesce(e.item ->> 'project', enqueue_many.project)
                 and i.key = e.item ->> 'idempotency_key'
     order by e.n;
end
$$;

comment on function sluice.enqueue_many is
    'Enqueues a JSON array of objects with the columns of sluice.job; returns a job id for each, in order, and whether it existed already.';

create function sluice.cancel(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    held record;
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
        returning r.attempts, null::bigint as worker, null::bigint as fence into held;
        if not found then
            delete from sluice.parked p where p.job_id = cancel.job
            returning p.attempts, null::bigint as worker, null::bigint as fence into held;
        end if;
        if not found then
            delete from sluice.inflight i where i.job_id = cancel.job
            returning i.attempts, i.worker, i.fence into held;
        end if;
        if found then
            if held.worker is not null then
                insert into sluice.recall (worker, job_id, fence) values (held.worker, cancel.job, held.fence);
            end if;
            insert into sluice.result (job_id, fence, state, attempts, cost_nanos, uncertain_nanos)
                 -- A fence of its own: the worker that had the job finds its own one gone.
                 select cancel.job, nextval('sluice.fence_seq'), 'cancelled', count(*),
                        case when count(*) = count(a.cost_nanos) then coalesce(sum(a.cost_nanos), 0) end,
                        coalesce(sum(a.uncertain_nanos), 0)
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

comment on function sluice.cancel(bigint) is
    'Cancels a job that is not finished: true. A finished one stays as it is: false. A call under way is dropped; what it costs is still booked.';

create function sluice.retry(job bigint) returns boolean
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
    returning r.state, r.provider, r.model, r.error_class into ended;
    if not found then
        return false;
    end if;
    select coalesce(max(a.round), 0), coalesce(max(a.number), 0) into last_round, tried
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

comment on function sluice.retry(bigint) is
    'Puts a failed or cancelled job back into the queue with a fresh count of attempts: true. Any other job: false.';

create function sluice.cancel(batch text) returns bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select count(*) from (
        select j.id from sluice.job j
         where j.batch = $1 and not exists (select from sluice.result r where r.job_id = j.id)
         order by j.id) open
     where sluice.cancel(open.id);
$$;

comment on function sluice.cancel(text) is 'Cancels every unfinished job of a batch; returns how many.';

create function sluice.retry(batch text) returns bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select count(*) from (
        select j.id from sluice.job j join sluice.result r on r.job_id = j.id
         where j.batch = $1 and r.state in ('failed', 'cancelled')
         order by j.id) ended
     where sluice.retry(ended.id);
$$;

comment on function sluice.retry(text) is 'Retries every failed or cancelled job of a batch; returns how many.';

-- ------------------------------------------------------------------------------------------------------ views
-- Whoever only enqueues sees their own rows; reporters, workers and the owner of the schema see all.
create function sluice.sees_all() returns boolean
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- The owner first: with a database of one's own it may well be a member of none of the roles.
    return pg_has_role(session_user, (select nspowner from pg_namespace where nspname = 'sluice'), 'member')
        or pg_has_role(session_user, 'sluice_reporter', 'member') or pg_has_role(session_user, 'sluice_worker', 'member');
exception when undefined_object then
    return true;
end
$$;

create view sluice.jobs with (security_barrier) as
select j.id,
       coalesce(r.state, case when i.job_id is not null then 'running' else 'queued' end) as state,
       j.route, j.project, j.batch, j.custom_id, j.priority, j.run_at, j.deadline, j.max_attempts,
       j.idempotency_key, j.metadata, j.created_at, r.finished_at,
       coalesce(r.attempts, i.attempts, p.attempts, q.attempts, 0::smallint) as attempts,
       case when r.job_id is null then p.run_at end as waits_until,
       case when r.job_id is null then p.reason end as waits_for,
       j.request
  from sluice.job j
       left join sluice.result r on r.job_id = j.id
       left join sluice.inflight i on i.job_id = j.id
       left join sluice.parked p on p.job_id = j.id
       left join sluice.ready q on q.flow = sluice.flow_of(j.route, j.project, j.batch) and q.prio = -j.priority
             and q.job_id = j.id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on view sluice.jobs is 'Every job with its state: queued, running, succeeded, failed or cancelled.';
comment on column sluice.jobs.attempts is 'Calls made for the job so far.';
comment on column sluice.jobs.waits_for is 'What a parked job waits for: scheduled, or the reason of its last wait.';

create view sluice.results with (security_barrier) as
select r.job_id, j.custom_id, j.batch, j.route, j.project, r.state,
       r.response #>> '{choices,0,message,content}' as answer,
       r.provider, r.model, r.attempts, r.repaired, r.error_class, r.error,
       round(r.cost_nanos / 1e9, 9) as cost, round(r.uncertain_nanos / 1e9, 9) as uncertain_cost,
       r.input_tokens, r.output_tokens, j.created_at, r.finished_at, r.request_id, j.metadata, r.response
  from sluice.result r join sluice.job j on j.id = r.job_id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on view sluice.results is 'How every finished job ended, with the answer and who gave it. Costs in dollars.';
comment on column sluice.results.cost is 'Dollars spent on all attempts of the job; NULL when the price of one is unknown.';
comment on column sluice.results.response is 'The whole answer as an OpenAI chat completion, whoever answered.';

create view sluice.attempts with (security_barrier) as
select a.job_id, a.number, a.round, a.provider, a.model, a.rung, a.started_at, a.ended_at, a.first_byte_ms, a.total_ms,
       a.accepted, a.class, a.detail, a.http_status, a.code, a.message, a.retry_at, a.request_id, a.model_served, a.finish,
       a.usage, a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens, a.output_tokens,
       a.reasoning_tokens, round(a.cost_nanos / 1e9, 9) as cost, round(a.uncertain_nanos / 1e9, 9) as uncertain_cost,
       a.price, a.decision, a.answer, j.route, j.project, j.batch
  from sluice.attempt a join sluice.job j on j.id = a.job_id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on view sluice.attempts is 'The ledger: every call to a provider, what came of it and what it cost in dollars.';

create view sluice.totals as
select * from sluice.tally union all select * from sluice.tally_hour;

comment on view sluice.totals is 'Sums by hour, route, project, batch, provider, model and error class; money in billionths of a dollar.';

create view sluice.batches as
select batch, min(project) as project, min(hour) as first_hour,
       sum(enqueued)::bigint as jobs, sum(succeeded)::bigint as succeeded, sum(failed)::bigint as failed,
       sum(cancelled)::bigint as cancelled,
       (sum(enqueued) - sum(succeeded) - sum(failed) - sum(cancelled))::bigint as unfinished,
       sum(attempts)::bigint as attempts, round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste,
       sum(unpriced)::bigint as unpriced_attempts
  from sluice.totals where batch <> '' group by batch;

comment on view sluice.batches is 'Every batch with its progress and what it cost so far, in dollars.';

create view sluice.cost_by_provider as
select provider, model, sum(attempts)::bigint as attempts, sum(succeeded)::bigint as jobs_answered,
       sum(input_tokens)::bigint as input_tokens, sum(cached_tokens)::bigint as cached_tokens,
       sum(output_tokens)::bigint as output_tokens, round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost, sum(unpriced)::bigint as unpriced_attempts
  from sluice.totals where provider <> '' group by provider, model;

comment on view sluice.cost_by_provider is 'What each model of each provider was paid, in dollars. waste: for answers that were not used.';

create view sluice.cost_daily as
select date_trunc('day', hour) as day, project, provider, model, sum(attempts)::bigint as attempts,
       round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste, round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost,
       sum(unpriced)::bigint as unpriced_attempts
  from sluice.totals where provider <> '' group by 1, 2, 3, 4;

comment on view sluice.cost_daily is 'What was spent per day, project, provider and model, in dollars.';

create view sluice.failures as
select class, detail, provider, model, route, sum(attempts)::bigint as attempts, sum(failed)::bigint as jobs_failed,
       round(sum(cost_nanos) / 1e9, 9) as cost, max(hour) as last_hour
  from sluice.totals where class <> '' group by class, detail, provider, model, route
having sum(attempts) > 0 or sum(failed) > 0;

comment on view sluice.failures is 'Attempts that failed and jobs that ended failed, by error class; detail names the soft failure.';

create view sluice.waste as
select provider, model, class, detail, sum(attempts)::bigint as attempts, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost
  from sluice.totals where provider <> '' group by provider, model, class, detail
having sum(waste_nanos) > 0 or sum(uncertain_nanos) > 0;

comment on view sluice.waste is 'Money spent on attempts whose answer was not used, in dollars.';

create view sluice.fallbacks as
select route, provider, model, sum(succeeded)::bigint as jobs_answered, sum(fallbacks)::bigint as after_fallback
  from sluice.totals where provider <> '' group by route, provider, model having sum(succeeded) > 0;

comment on view sluice.fallbacks is 'Who answered how many jobs of a route, and how many of them after another target had failed or was passed over.';

create view sluice.latency as
select provider, model, count(*) as answers, avg(total_ms)::bigint as mean_ms,
       percentile_disc(0.5) within group (order by total_ms) as p50_ms,
       percentile_disc(0.95) within group (order by total_ms) as p95_ms,
       percentile_disc(0.99) within group (order by total_ms) as p99_ms,
       percentile_disc(0.5) within group (order by first_byte_ms) as first_byte_p50_ms
  from sluice.attempt where accepted and ended_at >= now() - interval '1 day' group by provider, model;

comment on view sluice.latency is 'How long accepted answers of the last 24 hours took, in milliseconds, by provider and model.';

select sluice.ensure_partitions();

-- ------------------------------------------------------------------------------------------------------ grants
do $$
declare
    role_name text;
begin
    if to_regrole('sluice_enqueuer') is not null then
        grant usage on schema sluice to sluice_enqueuer;
        grant insert (route, project, batch, custom_id, priority, run_at, deadline, max_attempts, idempotency_key,
                      metadata, request) on sluice.job to sluice_enqueuer;
        -- For `insert … returning id`, which libraries append unasked. That there are jobs of others, and since when,
        -- is all that can be seen by it.
        grant select (id, created_at) on sluice.job to sluice_enqueuer;
        grant usage on sequence sluice.job_id_seq to sluice_enqueuer;
        grant select on sluice.jobs, sluice.results, sluice.attempts to sluice_enqueuer;
    end if;
    if to_regrole('sluice_reporter') is not null then
        grant usage on schema sluice to sluice_reporter;
        grant select on sluice.jobs, sluice.results, sluice.attempts, sluice.batches, sluice.totals,
            sluice.cost_by_provider, sluice.cost_daily, sluice.failures, sluice.waste, sluice.fallbacks, sluice.latency
            to sluice_reporter;
        -- What the commands that only read look at: the bodies, which the views above show whole, and where jobs are.
        grant select on sluice.job, sluice.result, sluice.attempt, sluice.ready, sluice.parked, sluice.inflight,
            sluice.worker, sluice.pause to sluice_reporter;
    end if;
    if to_regrole('sluice_worker') is not null then
        grant usage on schema sluice to sluice_worker;
        grant select, insert, update, delete on all tables in schema sluice to sluice_worker;
        grant usage, select on all sequences in schema sluice to sluice_worker;
    end if;
    -- Every command looks at the version of the schema first.
    if to_regclass('sluice.migration') is not null then
        foreach role_name in array array['sluice_enqueuer', 'sluice_reporter', 'sluice_worker'] loop
            if to_regrole(role_name) is not null then
                execute format('grant select on sluice.migration to %I', role_name);
            end if;
        end loop;
    end if;
end
$$;

-- Functions that change the queue are for those who may: not for everyone who may connect.
revoke execute on all functions in schema sluice from public;
grant execute on function sluice.flow_of, sluice.sees_all to public;
do $$
begin
    if to_regrole('sluice_enqueuer') is not null then
        grant execute on function sluice.enqueue, sluice.enqueue_many to sluice_enqueuer;
    end if;
    if to_regrole('sluice_worker') is not null then
        grant execute on all functions in schema sluice to sluice_worker;
    end if;
end
$$;
