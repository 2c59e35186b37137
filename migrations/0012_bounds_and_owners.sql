-- What one login puts into the queue stays within bounds, and touches nothing of another's: names and bodies have a
-- most, idempotency keys belong to the login that used them, job numbers are given with a job and not for the asking,
-- what upkeep takes turns by can be locked by workers alone, and who is allowed how much can be written down.
--
-- Workers of the version before go on beside it: all of this is behind the functions and the trigger that they use.
-- Nothing that is stored is looked through or rewritten under a lock; rows that are beyond a bound stay as they are.

-- ---------------------------------------------------------------------------------------- who sees the rows of others
-- A role that is missing opens nothing. (It did: the question about it failed, and the failure was taken for a yes.)
create or replace function sluice.sees_all() returns boolean
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    -- The owner first: with a database of one's own it may well be a member of none of the roles.
    select coalesce(bool_or(pg_has_role(session_user, r.id, 'member')), false)
      from (select n.nspowner as id from pg_namespace n where n.nspname = 'sluice'
            union all select to_regrole('sluice_reporter')::oid
            union all select to_regrole('sluice_worker')::oid) r
     where r.id is not null
$$;

comment on function sluice.sees_all is
    'Whether this login sees the jobs of others: it is the owner of the schema, or a member of sluice_reporter or sluice_worker. A role that does not exist has no members.';

-- --------------------------------------------------------------------------------------------------- taking turns
-- Any login can take an advisory lock whose number it can work out, and hold it. A row it can lock only where it may
-- update the table, so these rows are for those who may.
create table sluice.turn (
    name text primary key
);
insert into sluice.turn (name)
     values ('ensure_partitions'), ('begin_partition'), ('retire'), ('unqueued'), ('fold_tally'), ('own_keys'),
            ('look_at_timeline');

comment on table sluice.turn is 'What only one session may be at: it locks the row until its transaction ends.';

create function sluice.take_turn(name text, waits boolean default true) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if take_turn.waits then
        perform from sluice.turn t where t.name = take_turn.name for update;
        if not found then
            raise no_data_found using message = format('sluice.turn has no row %L', take_turn.name),
                hint = format('insert into sluice.turn (name) values (%L);', take_turn.name);
        end if;
        return true;
    end if;
    perform from sluice.turn t where t.name = take_turn.name for update skip locked;
    return found;
end
$$;

comment on function sluice.take_turn is
    'Takes the turn at something until the end of the transaction: true. Another session is at it, and it is not to be waited for: false.';

-- As before, but for the lock: whatever the functions are by now, they take turns by rows.
do $$
declare
    taker record;
begin
    for taker in
        select p.oid, pg_get_functiondef(p.oid) as definition
          from pg_proc p
         where p.pronamespace = 'sluice'::regnamespace and p.prosrc ~ 'pg_(try_)?advisory_xact_lock\('
    loop
        execute regexp_replace(
            regexp_replace(taker.definition,
                'pg_try_advisory_xact_lock\(hashtextextended\(''sluice\.(\w+)'', 0\)\)', 'sluice.take_turn(''\1'', false)', 'g'),
            'pg_advisory_xact_lock\(hashtextextended\(''sluice\.(\w+)'', 0\)\)', 'sluice.take_turn(''\1'')', 'g');
    end loop;
    if exists (select from pg_proc p where p.pronamespace = 'sluice'::regnamespace and p.prosrc ~ 'advisory') then
        raise exception 'a function of the schema sluice takes an advisory lock in a way that this migration does not know';
    end if;
end
$$;

-- Of two commands that enqueue into the same batch one is first. The row is of the login, so that no other can be in
-- its way; it is committed before it is locked, since a row that is not committed can be waited for, but not shared.
create table sluice.batch_turn (
    login text not null,
    batch text not null,
    since timestamptz not null default now(),
    primary key (login, batch)
);

comment on table sluice.batch_turn is
    'What commands that enqueue take turns by, for each login and batch; forgotten after a day.';

create function sluice.open_batch_turn(batch text) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into sluice.batch_turn (login, batch) values (session_user, left($1, 300)) on conflict do nothing
$$;

comment on function sluice.open_batch_turn is 'Makes what sluice.take_batch_turn takes; in a transaction before that.';

create function sluice.take_batch_turn(batch text, alone boolean, waits boolean) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant text := session_user;
begin
    if not take_batch_turn.alone then
        perform from sluice.batch_turn t where t.login = me and t.batch = left($1, 300) for share;
    elsif take_batch_turn.waits then
        perform from sluice.batch_turn t where t.login = me and t.batch = left($1, 300) for update;
    else
        perform from sluice.batch_turn t where t.login = me and t.batch = left($1, 300) for update nowait;
    end if;
    return case when found then true end;
exception when lock_not_available then
    return false;
end
$$;

comment on function sluice.take_batch_turn is
    'The turn of this login at a batch, alone or beside others of its sessions that are not alone either, until the transaction ends: true. Another session has it, and is not waited for (or not longer than lock_timeout): false. It was not opened, or is forgotten: NULL.';

-- ------------------------------------------------------------------------------------------------------ job numbers
-- A default of nextval() is worked out with the rights of the login that inserts, so each had the right to take numbers
-- without end. An identity column needs none.
do $$
declare
    tries integer := 0;
    next_id bigint;
begin
    -- Both locks or none: a session that has taken a number may be waiting for the table.
    loop
        begin
            set local lock_timeout = '250ms';
            lock table sluice.job in access exclusive mode;
            alter sequence sluice.job_id_seq cache 1;
            exit;
        exception when lock_not_available or deadlock_detected then
            tries := tries + 1;
            if tries >= 12 then
                raise;
            end if;
        end;
    end loop;
    set local lock_timeout = '3s';
    select case when is_called then last_value + 1 else last_value end into next_id from sluice.job_id_seq;
    alter table sluice.job alter column id drop default;
    drop sequence sluice.job_id_seq;
    execute format('alter table sluice.job alter column id
        add generated by default as identity (sequence name sluice.job_id_seq start with %s cache 1)', next_id);
end
$$;

-- -------------------------------------------------------------------------------------------------- keys have owners
-- The keys of before are taken over by upkeep, a few thousand at a time; until then they are looked up where they are.
alter table sluice.idempotency rename to idempotency_unowned;
alter index sluice.idempotency_pkey rename to idempotency_unowned_pkey;

create table sluice.idempotency (
    project    text not null,
    owner      text not null,
    key        text not null,
    job_id     bigint not null,
    created_at timestamptz not null default now(),
    primary key (project, owner, key)
);

comment on table sluice.idempotency is
    'Idempotency keys: each belongs to the login that enqueued its job (enqueued_by), within a project.';
comment on table sluice.idempotency_unowned is
    'Keys from before they had owners, until upkeep has taken them over: the owner is that of the job.';
comment on column sluice.job.idempotency_key is
    'Unique for its login within its project. A second insert with the same key is refused; sluice.enqueue returns the first job instead.';

create function sluice.own_keys(most integer default 5000) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
    taken bigint;
begin
    if not sluice.take_turn('own_keys', false) then
        return 0;
    end if;
    with old as (
        delete from sluice.idempotency_unowned
         where ctid = any (array(select ctid from sluice.idempotency_unowned limit most for update skip locked))
        returning project, key, job_id, created_at
    ), kept as (
        insert into sluice.idempotency (project, owner, key, job_id, created_at)
             select o.project, j.enqueued_by, o.key, o.job_id, o.created_at
               from old o cross join lateral (
                    select b.enqueued_by from sluice.job b
                     where b.id = o.job_id and b.project = o.project and b.idempotency_key = o.key limit 1) j
              order by 1, 2, 3
        on conflict do nothing
    )
    select count(*) into taken from old;
    return taken;
-- A session enqueues with one of these keys at this moment. They are found where they are until it has ended.
exception when lock_not_available then
    return 0;
end
$$;

comment on function sluice.own_keys is
    'Takes over so many keys from before keys had owners; returns how many. None are left, or it is not the moment: 0.';

-- Which job has a key of a login; NULL: none that is there. Of several, where one is from before keys had owners, the
-- first.
create function sluice.key_holder(project text, owner text, key text) returns bigint
    language sql stable as $$
    select min(h.job_id)
      from (select i.job_id from sluice.idempotency i where i.project = $1 and i.owner = $2 and i.key = $3
             union all
            select u.job_id from sluice.idempotency_unowned u where u.project = $1 and u.key = $3) h
           cross join lateral (
            select b.id from sluice.job b
             where b.id = h.job_id and b.project = $1 and b.enqueued_by = $2 and b.idempotency_key = $3 limit 1) j
$$;

comment on function sluice.key_holder is 'The job that has an idempotency key of a login in a project.';

-- ---------------------------------------------------------------------------------------------------------- bounds
create function sluice.most_bytes(name text) returns integer
    language sql immutable parallel safe
    return case name
               when 'route' then 200
               when 'project' then 200
               when 'batch' then 200
               when 'enqueued_by' then 200
               when 'custom_id' then 512
               when 'idempotency_key' then 1024
               when 'metadata' then 1048576
               when 'request' then 33554432
           end;

comment on function sluice.most_bytes is
    'How many bytes a column of sluice.job may have at most; metadata and request as JSON text. NULL: it is no such column.';

-- Of JSON the text counts, since that is what is read. It is made only where it may be too long: a number of a few
-- bytes can be 131,072 digits long, and so a value can be some 8,000 times as long as it is stored.
create function sluice.json_too_long(value jsonb, most integer) returns boolean
    language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
    return octet_length(value::text) > most;
exception when program_limit_exceeded or out_of_memory then
    return true;
end
$$;

create function sluice.may_be_too_long(value jsonb, most integer) returns boolean
    language sql stable parallel safe
    return pg_column_size(value) > most / 8192 or pg_column_compression(value) is not null;

-- ------------------------------------------------------------------------------------------------------- allowances
create table sluice.allowance (
    id        bigint generated always as identity primary key,
    login     text not null,
    route     text,
    project   text,
    priority  smallint,
    open_jobs integer check (open_jobs >= 0)
);
create index allowance_login on sluice.allowance (login);

comment on table sluice.allowance is
    'Who may enqueue what. Without any row: everybody everything. With rows: each login what its own rows and those of * let in; the owner of the schema and members of sluice_worker always everything.';
comment on column sluice.allowance.login is 'The login, as session_user has it; * for every login.';
comment on column sluice.allowance.route is 'On this route; NULL: on every one.';
comment on column sluice.allowance.project is 'In this project; NULL: in every one.';
comment on column sluice.allowance.priority is 'With a priority up to this; NULL: up to 1000.';
comment on column sluice.allowance.open_jobs is
    'While the login has fewer unfinished jobs than this in all; NULL: however many. Of several rows the largest counts.';

-- The jobs of logins that may have only so many open ones. Those that have ended are taken out when it matters, so that
-- nothing that settles jobs has to know of it.
create table sluice.open_job (
    login  text not null,
    job_id bigint not null,
    primary key (login, job_id)
);

comment on table sluice.open_job is
    'Jobs of logins with a bound of open jobs (sluice.allowance), and some that have ended since.';

create function sluice.count_open_jobs(login text, most bigint) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    counted bigint;
begin
    select count(*) into counted
      from (select from sluice.open_job o where o.login = count_open_jobs.login limit most) s;
    if counted < most then
        return counted;
    end if;
    -- Perhaps it only looks so. What another session of this login is at is left to it.
    delete from sluice.open_job d
     where d.ctid = any (array(
           select o.ctid from sluice.open_job o
            where o.login = count_open_jobs.login
              and (exists (select from sluice.result r where r.job_id = o.job_id)
                   or not exists (select from sluice.job j where j.id = o.job_id))
              for update skip locked));
    select count(*) into counted
      from (select from sluice.open_job o where o.login = count_open_jobs.login limit most) s;
    return counted;
end
$$;

comment on function sluice.count_open_jobs is
    'How many open jobs a login with a bound has, as far as committed, up to this many.';

-- Before the trigger that puts jobs into the queue, by its name. A violated check would quote the row, prompt and all.
create function sluice.job_bounds() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant text := session_user;
    longest record;
    name text;
    found_bytes integer;
    most bigint;
    refused record;
begin
    select max(octet_length(f.route)) as route, max(octet_length(f.project)) as project,
           max(octet_length(f.batch)) as batch, max(octet_length(f.enqueued_by)) as enqueued_by,
           max(octet_length(f.custom_id)) as custom_id, max(octet_length(f.idempotency_key)) as idempotency_key,
           bool_or(sluice.may_be_too_long(f.request, 33554432)) as request,
           bool_or(sluice.may_be_too_long(f.metadata, 1048576)) as metadata
      into longest from fresh f;
    foreach name in array array['route', 'project', 'batch', 'enqueued_by', 'custom_id', 'idempotency_key'] loop
        found_bytes := case name when 'route' then longest.route when 'project' then longest.project
                                 when 'batch' then longest.batch when 'enqueued_by' then longest.enqueued_by
                                 when 'custom_id' then longest.custom_id else longest.idempotency_key end;
        if found_bytes > sluice.most_bytes(name) then
            raise check_violation using
                message = format('%s: is %s bytes long; expected at most %s', name, found_bytes, sluice.most_bytes(name)),
                schema = 'sluice', table = 'job', column = name, constraint = 'job_' || name || '_bytes';
        end if;
    end loop;
    if longest.request and exists (
        select from fresh f where sluice.may_be_too_long(f.request, 33554432) and sluice.json_too_long(f.request, 33554432))
    then
        raise check_violation using message = 'request: is larger than 32 MB',
            schema = 'sluice', table = 'job', column = 'request', constraint = 'job_request_bytes';
    end if;
    if longest.metadata and exists (
        select from fresh f where sluice.may_be_too_long(f.metadata, 1048576) and sluice.json_too_long(f.metadata, 1048576))
    then
        raise check_violation using message = 'metadata: is larger than 1 MB',
            schema = 'sluice', table = 'job', column = 'metadata', constraint = 'job_metadata_bytes';
    end if;

    if not exists (select from sluice.allowance) or coalesce((
        select bool_or(pg_has_role(session_user, r.id, 'member'))
          from (select n.nspowner as id from pg_namespace n where n.nspname = 'sluice'
                union all select to_regrole('sluice_worker')::oid) r
         where r.id is not null), false)
    then
        return null;
    end if;
    for refused in
        select f.route, f.project, f.priority, a.most
          from (select j.route, j.project, max(j.priority) as priority from fresh j group by j.route, j.project) f
               left join lateral (
                   select max(coalesce(w.open_jobs, 2147483647)) as most
                     from sluice.allowance w
                    where w.login in (me, '*') and (w.route is null or w.route = f.route)
                      and (w.project is null or w.project = f.project)
                      and (w.priority is null or w.priority >= f.priority)) a on true
    loop
        if refused.most is null then
            raise check_violation using
                message = format('%I may not enqueue on route %L in project %L with priority %s',
                                 session_user, refused.route, refused.project, refused.priority),
                hint = 'No row of sluice.allowance lets it in. The owner of the schema sluice can add one.',
                schema = 'sluice', table = 'job', constraint = 'job_allowance';
        end if;
        most := least(most, refused.most);
    end loop;
    if most < 2147483647 then
        if sluice.count_open_jobs(me, greatest(most + 1 - (select count(*) from fresh), 0)) + (select count(*) from fresh) > most then
            raise check_violation using
                message = format('%I may have %s open jobs at most, and with these it would have more', session_user, most),
                hint = 'Wait until some have ended. The bound stands in sluice.allowance.',
                schema = 'sluice', table = 'job', constraint = 'job_open_jobs';
        end if;
        insert into sluice.open_job (login, job_id) select me, f.id from fresh f on conflict do nothing;
    end if;
    return null;
end
$$;

create trigger job_bounds after insert on sluice.job
    referencing new table as fresh for each statement execute function sluice.job_bounds();

-- -------------------------------------------------------------------------------- what comes in, with keys of its owner
create or replace function sluice.job_enqueued() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    keyed bigint;
    kept bigint;
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
        insert into sluice.idempotency (project, owner, key, job_id)
             select project, enqueued_by, idempotency_key, id from fresh where idempotency_key is not null order by 1, 2, 3, 4
        on conflict do nothing;
        get diagnostics kept = row_count;
        -- Where all keys were new, and none is left from before keys had owners, nothing is looked up.
        for clash in
            select f.id, f.project, f.enqueued_by, f.idempotency_key, k.job_id
              from fresh f cross join lateral (
                   select i.job_id from sluice.idempotency i
                    where i.project = f.project and i.owner = f.enqueued_by
                      and i.key = any (array[f.idempotency_key])
                    union all
                   select u.job_id from sluice.idempotency_unowned u
                    where u.project = f.project and u.key = any (array[f.idempotency_key])) k
             where (kept < keyed or exists (select from sluice.idempotency_unowned)) and k.job_id <> f.id
             order by f.project, f.enqueued_by, f.idempotency_key, f.id
        loop
            clash.job_id := sluice.key_holder(clash.project, clash.enqueued_by, clash.idempotency_key);
            if clash.job_id = clash.id then
                continue;
            end if;
            -- A key whose job is not there belongs to the job that comes with it.
            if clash.job_id is null then
                update sluice.idempotency i set job_id = clash.id, created_at = now()
                 where i.project = clash.project and i.owner = clash.enqueued_by and i.key = clash.idempotency_key;
                continue when found;
            end if;
            raise unique_violation using
                message = format('idempotency key %L of project %L belongs to job %s already',
                                 clash.idempotency_key, clash.project, clash.job_id),
                hint = 'sluice.enqueue(…, idempotency_key => …) returns the first job instead of failing.';
        end loop;
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

create or replace function sluice.enqueue(
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
    -- A variable: compared with session_user itself, which has a collation of its own, no index would be used.
    me constant text := session_user;
    new_id bigint;
    first_id bigint;
begin
    if idempotency_key is not null then
        -- Before a number is taken: a caller may repeat itself as often as it likes.
        first_id := sluice.key_holder(project, me, idempotency_key);
        if first_id is not null then
            return first_id;
        end if;
    end if;
    new_id := nextval('sluice.job_id_seq');
    if idempotency_key is not null then
        insert into sluice.idempotency as i (project, owner, key, job_id)
             values (project, me, idempotency_key, new_id)
        on conflict do nothing;
        if not found then
            -- Another session of this login was first, or the job that had the key is not there any more.
            first_id := sluice.key_holder(project, me, idempotency_key);
            if first_id is not null then
                return first_id;
            end if;
            -- Of two that find that at once the second waits for the first here.
            update sluice.idempotency i set job_id = new_id, created_at = now()
             where i.project = enqueue.project and i.owner = me and i.key = enqueue.idempotency_key
               and not exists (select from sluice.job j where j.id = i.job_id and j.project = i.project
                                  and j.enqueued_by = i.owner and j.idempotency_key = i.key);
            if not found then
                return sluice.key_holder(project, me, idempotency_key);
            end if;
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
    'Enqueues one request and returns its job id. With an idempotency key that this login has used in the project before, returns the first job and enqueues nothing.';

create or replace function sluice.enqueue_many(
    jobs    jsonb,
    route   text default 'default',
    project text default 'default',
    batch   text default null
) returns table (ordinal bigint, job_id bigint, existing boolean)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    me constant text := session_user;
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
    -- Every job has its number before anything is written: so it is told from one that had the key before it. None is
    -- taken for a job whose key is known, from before or from earlier in the array.
    select array_agg(s.id order by s.n) into ids
      from (select o.n, case when o.needs_one then nextval('sluice.job_id_seq') end as id
              from (select e.n, e.key is null
                           or (row_number() over (partition by e.project, e.key order by e.n) = 1
                               -- Nearly all keys are new: the function is for the others.
                               and (((select i.job_id from sluice.idempotency i
                                       where i.project = e.project and i.owner = me and i.key = e.key limit 1) is null
                                     and (select u.job_id from sluice.idempotency_unowned u
                                           where u.project = e.project and u.key = e.key limit 1) is null)
                                    or sluice.key_holder(e.project, me, e.key) is null)) as needs_one
                      from (select j.n, coalesce(j.item ->> 'project', enqueue_many.project) as project,
                                   j.item ->> 'idempotency_key' as key
                              from jsonb_array_elements(enqueue_many.jobs) with ordinality j(item, n)) e
                     order by e.n) o) s;
    insert into sluice.idempotency (project, owner, key, job_id)
         select coalesce(e.item ->> 'project', enqueue_many.project), me, e.item ->> 'idempotency_key',
                ids[e.n::integer]
           from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
          where e.item ->> 'idempotency_key' is not null and ids[e.n::integer] is not null
          order by 1, 2, 3
    on conflict do nothing;
    -- From here on in statements of their own, so that they see the keys which another session committed meanwhile.
    -- A key whose job is not there any more goes to the first job that comes with it.
    update sluice.idempotency i set job_id = s.id, created_at = now()
      from (select coalesce(e.item ->> 'project', enqueue_many.project) as project,
                   e.item ->> 'idempotency_key' as key, ids[e.n::integer] as id
              from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
             where e.item ->> 'idempotency_key' is not null and ids[e.n::integer] is not null) s
     where i.project = s.project and i.owner = me and i.key = s.key and i.job_id <> s.id
       and not exists (select from sluice.job j where j.id = i.job_id and j.project = i.project
                          and j.enqueued_by = i.owner and j.idempotency_key = i.key);
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
                       on i.project = coalesce(r.project, enqueue_many.project) and i.owner = me
                      and i.key = r.idempotency_key
          where ids[e.n::integer] is not null and (r.idempotency_key is null or i.job_id = ids[e.n::integer])
          order by e.n;
    return query
    select h.n, coalesce(h.holder, ids[h.n::integer]), h.holder is distinct from ids[h.n::integer] and h.key is not null
      from (select e.n, e.key,
                   case when e.key is null then null
                        -- As nearly all: it has just been put there.
                        when ids[e.n::integer] = (select i.job_id from sluice.idempotency i
                                                   where i.project = e.project and i.owner = me and i.key = e.key limit 1)
                            then ids[e.n::integer]
                        else sluice.key_holder(e.project, me, e.key) end as holder
              from (select j.n, coalesce(j.item ->> 'project', enqueue_many.project) as project,
                           j.item ->> 'idempotency_key' as key
                      from jsonb_array_elements(enqueue_many.jobs) with ordinality j(item, n)) e) h
     order by h.n;
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
    perform sluice.take_turn('unqueued');
    found_jobs := array(select u.job_id from sluice.unqueued(queue_unqueued.first, queue_unqueued.past) u order by 1);
    if found_jobs = '{}' then
        queued := 0;
        kept := '{}';
        return;
    end if;
    -- What the triggers refuse stays where it is.
    good := array(select j.id from sluice.job j
                   where j.id = any (found_jobs) and j.priority between -1000 and 1000
                     and coalesce(j.max_attempts, 1) > 0
                     and octet_length(j.route) <= sluice.most_bytes('route')
                     and octet_length(j.project) <= sluice.most_bytes('project')
                     and octet_length(coalesce(j.batch, '')) <= sluice.most_bytes('batch')
                     and octet_length(coalesce(j.custom_id, '')) <= sluice.most_bytes('custom_id')
                     and octet_length(coalesce(j.idempotency_key, '')) <= sluice.most_bytes('idempotency_key')
                     and octet_length(j.enqueued_by) <= sluice.most_bytes('enqueued_by')
                     and not (sluice.may_be_too_long(j.request, 33554432) and sluice.json_too_long(j.request, 33554432))
                     and not coalesce(sluice.may_be_too_long(j.metadata, 1048576)
                                      and sluice.json_too_long(j.metadata, 1048576), false)
                   order by j.id);
    insert into sluice.idempotency (project, owner, key, job_id)
         select j.project, j.enqueued_by, j.idempotency_key, j.id
           from sluice.job j where j.id = any (good) and j.idempotency_key is not null order by 1, 2, 3, 4
    on conflict do nothing;
    good := array(select j.id
                    from sluice.job j
                         left join sluice.idempotency i
                                on i.project = j.project and i.owner = j.enqueued_by and i.key = j.idempotency_key
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

-- ------------------------------------------------------------------------------------ whose job stands in a batch
create or replace function sluice.batch_lines(batch text) returns table (custom_id text, digest bytea)
    language sql stable security definer set search_path = pg_catalog, pg_temp rows 100000 as $$
    select j.custom_id,
           case when j.custom_id is null or row_number() over (order by j.id) <= 100
                then sluice.line_digest(j.request, j.metadata) end
      from sluice.job j
     where j.batch = $1
       and (j.enqueued_by = session_user
            or ((select sluice.sees_all())
                -- One that has jobs of its own there compares with those: a job of another login is no line of its
                -- file.
                and not (select exists (select from sluice.job o where o.batch = $1 and o.enqueued_by = session_user))))
$$;

comment on function sluice.batch_lines is
    'One row for each job of a batch that this login enqueued, or, where it enqueued none, that it may see: its custom_id, and the digest of its line where it has none, and of the first hundred.';

create or replace view sluice.results with (security_barrier) as
select r.job_id, j.custom_id, j.batch, j.route, j.project, r.state,
       r.response #>> '{choices,0,message,content}' as answer,
       r.provider, r.model, r.attempts, r.repaired, r.error_class, r.error,
       round(r.cost_nanos / 1e9, 9) as cost, round(r.uncertain_nanos / 1e9, 9) as uncertain_cost,
       r.input_tokens, r.output_tokens, j.created_at, r.finished_at, r.request_id, j.metadata, r.response, j.enqueued_by
  from sluice.result r join sluice.job j on j.id = r.job_id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.results.enqueued_by is 'The login that enqueued the job. A batch may hold jobs of several.';

-- ------------------------------------------------------------------------------------------------------ grants
-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.take_turn, sluice.open_batch_turn, sluice.take_batch_turn, sluice.own_keys,
    sluice.key_holder, sluice.json_too_long, sluice.may_be_too_long, sluice.count_open_jobs, sluice.job_bounds from public;
grant execute on function sluice.most_bytes to public;
do $$
begin
    -- It had the rights of the table that it was.
    if to_regrole('sluice_worker') is not null then
        revoke all on sluice.idempotency_unowned from sluice_worker;
    end if;
end
$$;
