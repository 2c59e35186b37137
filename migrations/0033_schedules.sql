-- Schedules: batches that workers enqueue by the clock.
--
-- What a schedule is stands in the configuration. The database has what all workers share: whether it is paused, up to
-- which instant its ticks are dealt with, and what came of each tick. The row of a tick is written in the transaction
-- that enqueues its jobs, so however many workers look and die, a tick enqueues once.
set local lock_timeout = '5s';

create table sluice.schedule (
    name         text primary key check (octet_length(name) between 1 and 200),
    cron         text not null,
    timezone     text not null,
    enabled      boolean not null,
    -- What else the configuration says of it, as it was seen last. Neither requests nor statements.
    settings     jsonb not null default '{}',
    -- Every tick up to here is dealt with.
    looked_at    timestamptz not null default now(),
    next_at      timestamptz,
    seen_at      timestamptz not null default now(),
    paused_at    timestamptz,
    paused_by    text,
    pause_reason text check (octet_length(pause_reason) <= 1000)
) with (fillfactor = 50);

comment on table sluice.schedule is 'Schedules, as workers have seen them last. Read the view sluice.schedules.';

-- The session that deals with ticks of a schedule holds its row here until the commit, which may take as long as a file
-- is long.
create table sluice.schedule_turn (
    schedule text primary key
);

comment on table sluice.schedule_turn is
    'A row for each schedule, locked by the transaction that deals with its ticks.';

create table sluice.tick (
    schedule text not null check (octet_length(schedule) between 1 and 200),
    at       timestamptz not null,
    state    text not null check (state in ('asked', 'retrying', 'done', 'skipped', 'failed')),
    by_hand  boolean not null default false,
    -- The login that asked for it, or the worker's.
    login    text not null default session_user,
    worker   bigint,
    batch    text,
    jobs     bigint not null default 0,
    enqueue  bigint,
    failures smallint not null default 0,
    retry_at timestamptz,
    reason   text,
    ended_at timestamptz not null default now(),
    primary key (schedule, at)
);

-- Those that are still to be done: a handful.
create index tick_open on sluice.tick (schedule, at) where state in ('asked', 'retrying');

-- The last one that was done, behind any number that were left out; and old ones, which are forgotten.
create index tick_done on sluice.tick (schedule, at) where state = 'done';
create index tick_ended on sluice.tick (ended_at);

comment on table sluice.tick is 'What came of the ticks of schedules. Read the view sluice.ticks.';

create function sluice.known_schedule(name text) returns text
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from sluice.schedule s where s.name = known_schedule.name;
    if not found then
        raise no_data_found using
            message = format('there is no schedule %L', known_schedule.name),
            hint = 'A schedule is known as soon as a worker has read its section [schedules.NAME].';
    end if;
    return known_schedule.name;
end
$$;

comment on function sluice.known_schedule is 'The name, if there is such a schedule; otherwise an error that says so.';

create function sluice.pause_schedule(name text, reason text default null) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform sluice.known_schedule(pause_schedule.name);
    if octet_length(pause_schedule.reason) > 1000 then
        raise invalid_parameter_value using
            message = format('reason: is %s bytes long; expected at most 1000', octet_length(pause_schedule.reason));
    end if;
    update sluice.schedule s
       set paused_at = now(), paused_by = session_user, pause_reason = pause_schedule.reason
     where s.name = pause_schedule.name and s.paused_at is null;
    return found;
end
$$;

comment on function sluice.pause_schedule is
    'Pauses a schedule: its ticks are left out until it is resumed. What it has enqueued goes on. False when it was '
    'paused already.';

create function sluice.resume_schedule(name text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform sluice.known_schedule(resume_schedule.name);
    -- Ticks that came meanwhile are not made up for, whether or not a worker has noted them.
    update sluice.schedule s
       set paused_at = null, paused_by = null, pause_reason = null, looked_at = greatest(s.looked_at, now())
     where s.name = resume_schedule.name and s.paused_at is not null;
    return found;
end
$$;

comment on function sluice.resume_schedule is
    'Resumes a schedule, from the next tick on. False when it was not paused.';

create function sluice.run_schedule(name text) returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    tick_at timestamptz := date_trunc('milliseconds', clock_timestamp());
begin
    perform sluice.known_schedule(run_schedule.name);
    insert into sluice.tick (schedule, at, state, by_hand, login)
         values (run_schedule.name, tick_at, 'asked', true, session_user);
    return tick_at;
end
$$;

comment on function sluice.run_schedule is
    'Asks the workers to run a schedule now, also one that is paused or disabled. Returns the tick under which '
    'sluice.ticks tells what came of it.';

create view sluice.ticks as
select t.schedule, t.at, t.state, t.by_hand, t.login, t.worker, t.batch, t.jobs, t.enqueue, t.failures, t.retry_at,
       t.reason, t.ended_at
  from sluice.tick t;

comment on view sluice.ticks is 'The ticks of schedules, and what came of each.';
comment on column sluice.ticks.at is 'The instant of the tick, however late it was dealt with.';
comment on column sluice.ticks.state is
    'asked: by hand, and no worker has taken it yet; retrying: it failed and is tried again; done; skipped; failed.';
comment on column sluice.ticks.by_hand is 'A person or a program asked for it, rather than the clock.';
comment on column sluice.ticks.login is 'The login that asked for it, or that of the worker.';
comment on column sluice.ticks.worker is 'The worker that dealt with it last. NULL: it was a command.';
comment on column sluice.ticks.batch is 'The batch that its jobs are in.';
comment on column sluice.ticks.jobs is 'How many jobs it has enqueued.';
comment on column sluice.ticks.enqueue is 'The number under which these jobs can be cancelled together.';
comment on column sluice.ticks.failures is 'How often it has failed.';
comment on column sluice.ticks.retry_at is 'When it is tried again.';
comment on column sluice.ticks.reason is 'Why it was skipped or has failed.';
comment on column sluice.ticks.ended_at is 'When that was written.';

create view sluice.schedules as
select s.name as schedule, s.cron, s.timezone, s.enabled, s.settings, s.next_at, s.seen_at, s.looked_at,
       s.paused_at is not null as paused, s.paused_at, s.paused_by, s.pause_reason,
       t.at as last_tick, t.state as last_state, t.batch as last_batch, t.jobs as last_jobs, t.reason as last_reason,
       t.failures as last_failures, t.retry_at, t.by_hand as last_by_hand
  from sluice.schedule s
       left join lateral (select x.* from sluice.tick x where x.schedule = s.name order by x.at desc limit 1) t on true;

comment on view sluice.schedules is 'Schedules as the workers have them, and what came of the last tick of each.';
comment on column sluice.schedules.cron is 'When it fires, as a crontab says it, in local time.';
comment on column sluice.schedules.timezone is 'Whose local time that is.';
comment on column sluice.schedules.enabled is 'Whether the configuration lets it fire.';
comment on column sluice.schedules.settings is 'What else the configuration says; neither requests nor statements.';
comment on column sluice.schedules.next_at is 'The next tick, as the workers have worked it out last.';
comment on column sluice.schedules.seen_at is 'When a worker last said that it has this schedule.';
comment on column sluice.schedules.looked_at is 'Every tick up to here is dealt with.';
comment on column sluice.schedules.paused_by is 'The login that paused it.';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.known_schedule, sluice.pause_schedule, sluice.resume_schedule, sluice.run_schedule
  from public;
