-- A database goes back in time: a standby that was behind is promoted, a backup is restored, a snapshot is brought
-- back. Then numbers come again. This notes which history the database is on, so that a change is noticed once, and job
-- numbers that may have been given out and lost are left out.
--
-- Safe with workers of the versions before: they know nothing of it, and go on beside it.

create table sluice.timeline (
    number            integer primary key,
    change            text not null check (change in ('first', 'cluster', 'database', 'tables', 'timeline', 'went_back')),
    system_identifier bigint,
    database          bigint not null,
    relation          bigint not null,
    timeline          integer,
    began_lsn         pg_lsn,
    began_at          timestamptz not null default clock_timestamp(),
    seen_at           timestamptz not null default clock_timestamp(),
    previous_seen_at  timestamptz,
    last_job          bigint not null,
    next_job          bigint,
    lost_from         timestamptz,
    lost_to           timestamptz,
    lost_calls        bigint not null default 0,
    lost_cost_nanos   bigint not null default 0,
    lost_unpriced     bigint not null default 0,
    lost_call_at      timestamptz
);

comment on table sluice.timeline is
    'The histories that the database has been on, newest last: one row for each promotion, restore or copy that a worker or sluice migrate has noticed.';
comment on column sluice.timeline.change is
    'What was another than before: first (nothing is known from before), cluster (system identifier), database (its oid), tables (restored into the same database), timeline (a promotion, or a point in time), went_back (none of these, and yet confirmed commits are gone).';
comment on column sluice.timeline.database is 'The oid of the database.';
comment on column sluice.timeline.relation is 'The oid of this table: another one after a restore from a dump.';
comment on column sluice.timeline.timeline is 'The timeline of the server''s WAL; NULL where it cannot be read.';
comment on column sluice.timeline.began_at is 'When it was noticed.';
comment on column sluice.timeline.seen_at is 'When it was last looked at, to a minute.';
comment on column sluice.timeline.previous_seen_at is
    'When the history before was last looked at, as the database remembers it: what was committed later may be gone.';
comment on column sluice.timeline.last_job is 'The highest job number that was given out, as far as the database knew.';
comment on column sluice.timeline.next_job is 'Jobs are numbered from here on since; NULL for the first history.';
comment on column sluice.timeline.lost_to is
    'When a worker''s commit was confirmed that is gone: so commits are lost. NULL: it is not known that anything is.';
comment on column sluice.timeline.lost_from is 'The last that is there of that worker.';
comment on column sluice.timeline.lost_calls is
    'Calls booked while this was the newest history whose jobs are not in the database (abandoned, lost_job) or whose number another job has (other_job).';

-- What tells this history from others. A login that may not read the control file gets NULL there. On a standby there
-- is no timeline of one's own.
create function sluice.whereabouts(out system_identifier bigint, out database bigint, out relation bigint,
                                   out timeline integer, out lsn pg_lsn)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    database := (select d.oid::bigint from pg_database d where d.datname = current_database());
    relation := 'sluice.timeline'::regclass::oid::bigint;
    begin
        system_identifier := (select c.system_identifier from pg_control_system() c);
    exception when others then null;
    end;
    begin
        if not pg_is_in_recovery() then
            lsn := pg_current_wal_flush_lsn();
            -- The control file learns of a promotion only with the next checkpoint.
            timeline := ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::integer;
        end if;
    exception when others then null;
    end;
end
$$;

comment on function sluice.whereabouts is 'The cluster, database and timeline that answer; what cannot be read is NULL.';

-- Partitions from the first up to the last, where there are none; and not those that retention has dropped.
create function sluice.make_partitions(first bigint, last bigint) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    width constant bigint := 10000000;
    made integer := 0;
    base text;
begin
    -- One at a time: two workers that start together would make the same table.
    perform pg_advisory_xact_lock(hashtextextended('sluice.ensure_partitions', 0));
    for n in make_partitions.first .. make_partitions.last loop
        continue when exists (select from sluice.retired r where r.part = n);
        foreach base in array array['job', 'result', 'attempt'] loop
            if to_regclass(format('sluice.%I', base || '_p' || n)) is null then
                -- Insert-only: freeze early and in small steps, and keep statistics fresh.
                execute format('create table sluice.%I (like sluice.%I including defaults including constraints
                    including compression including storage) with (autovacuum_vacuum_insert_scale_factor = 0.05,
                    autovacuum_analyze_scale_factor = 0.05)', base || '_p' || n, base);
                execute format('alter table sluice.%I attach partition sluice.%I for values from (%L) to (%L)',
                    base, base || '_p' || n, n * width, (n + 1) * width);
                made := made + 1;
            end if;
        end loop;
    end loop;
    return made;
end
$$;

create or replace function sluice.ensure_partitions(ahead integer default 3) returns integer
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select sluice.make_partitions(last_value / 10000000, last_value / 10000000 + $1) from sluice.job_id_seq
$$;

create function sluice.look_at_timeline(seen_job bigint, lost_from timestamptz, lost_to timestamptz, begins boolean,
                                        out outcome text, out number integer)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    width constant bigint := 10000000;
    -- So many numbers at least are left out.
    step constant bigint := 1000000;
    here record;
    last sluice.timeline;
    other text;
    given bigint;
    goes_on bigint;
    is_alone boolean := false;
begin
    select * into here from sluice.whereabouts();
    loop
        select * into last from sluice.timeline t order by t.number desc limit 1;
        select s.last_value into given from sluice.job_id_seq s;
        other := case
            when last.number is null then case when begins then 'first' end
            -- What could not be read, then or now, says nothing.
            when last.system_identifier <> here.system_identifier then 'cluster'
            when last.database <> here.database then 'database'
            when last.relation <> here.relation then 'tables'
            when last.timeline <> here.timeline then 'timeline'
            -- A worker knows of more than is here; and not because of what was noticed before.
            when seen_job > given or coalesce(look_at_timeline.lost_from, look_at_timeline.lost_to) > last.began_at
                then 'went_back'
        end;
        exit when other is null or is_alone;
        -- Of several who notice it at once one does what there is to do.
        perform pg_advisory_xact_lock(hashtextextended('sluice.look_at_timeline', 0));
        is_alone := true;
    end loop;
    if other is null then
        outcome := 'same';
        number := last.number;
        if look_at_timeline.lost_to is not null then
            update sluice.timeline t
               set lost_from = look_at_timeline.lost_from, lost_to = look_at_timeline.lost_to
             where t.number = last.number and t.change <> 'first' and t.lost_to is null;
            if found then
                outcome := 'lost';
            end if;
        end if;
        update sluice.timeline t
           set seen_at = clock_timestamp(), system_identifier = coalesce(t.system_identifier, here.system_identifier),
               timeline = coalesce(t.timeline, here.timeline)
         where t.number = last.number and t.seen_at < clock_timestamp() - interval '1 minute';
        return;
    end if;
    if other <> 'first' then
        -- Retention moves the numbers on, too.
        perform pg_advisory_xact_lock(hashtextextended('sluice.begin_partition', 0));
        select s.last_value into given from sluice.job_id_seq s;
        goes_on := (greatest(given, seen_job) / step + 2) * step;
        -- First the partitions, and in a transaction of their own: numbers are given as soon as the sequence is set.
        if sluice.make_partitions(given / width, goes_on / width + 1) > 0 then
            outcome := 'again';
            return;
        end if;
        perform setval('sluice.job_id_seq', goes_on, false);
        -- Workers and their claims are numbered as well; those of before may live.
        perform setval('sluice.worker_id_seq', (w.last_value / step + 2) * step, false) from sluice.worker_id_seq w;
        perform setval('sluice.fence_seq', f.last_value + 1000000000) from sluice.fence_seq f;
    end if;
    insert into sluice.timeline (number, change, system_identifier, database, relation, timeline, began_lsn,
                                 previous_seen_at, last_job, next_job, lost_from, lost_to)
         values (coalesce(last.number, 0) + 1, other, here.system_identifier, here.database, here.relation,
                 here.timeline, here.lsn, last.seen_at, given, goes_on, look_at_timeline.lost_from,
                 look_at_timeline.lost_to)
      returning timeline.number into number;
    outcome := case other when 'first' then 'first' else 'changed' end;
end
$$;

comment on function sluice.look_at_timeline is
    'Compares where the database is with what is noted. same; first (noted, nothing was before); changed (noted, and numbers go on far behind all that may have been given out); lost (it is now known that commits were lost); again (partitions were made: call again).';

-- ------------------------------------------------------------------------ keys whose job is gone, or is another
-- A key leads to the job that has it, and to no other.
create function sluice.has_key(job bigint, project text, key text) returns boolean
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select exists (select from sluice.job j where j.id = $1 and j.project = $2 and j.idempotency_key = $3)
$$;

comment on function sluice.has_key is 'Whether a job is there and has this idempotency key.';

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
        for clash in
            select f.id, f.project, f.idempotency_key, i.job_id
              from fresh f join sluice.idempotency i on i.project = f.project and i.key = f.idempotency_key
             where i.job_id <> f.id
             order by f.project, f.idempotency_key, f.id
        loop
            -- A key whose job is not there belongs to the job that comes with it.
            if not sluice.has_key(clash.job_id, clash.project, clash.idempotency_key) then
                update sluice.idempotency i set job_id = clash.id, created_at = now()
                 where i.project = clash.project and i.key = clash.idempotency_key and i.job_id = clash.job_id;
                continue when found;
            end if;
            raise unique_violation using
                message = format('idempotency key %L of project %L belongs to job %s already',
                                 clash.idempotency_key, clash.project, clash.job_id),
                hint = 'sluice.enqueue(…, idempotency_key => …) returns the first job instead of failing.';
        end loop;
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
            if sluice.has_key(first_id, enqueue.project, enqueue.idempotency_key) then
                return first_id;
            end if;
            -- Its job is not there any more. Of two that find that at once the second waits for the first here.
            update sluice.idempotency i set job_id = new_id, created_at = now()
             where i.project = enqueue.project and i.key = enqueue.idempotency_key and i.job_id = first_id;
            if not found then
                select i.job_id into first_id from sluice.idempotency i
                 where i.project = enqueue.project and i.key = enqueue.idempotency_key;
                return first_id;
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

create or replace function sluice.enqueue_many(
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
    -- A key whose job is not there any more goes to the first job that comes with it.
    update sluice.idempotency i set job_id = s.id, created_at = now()
      from (select distinct on (1, 2) coalesce(e.item ->> 'project', enqueue_many.project) as project,
                   e.item ->> 'idempotency_key' as key, ids[e.n::integer] as id
              from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
             where e.item ->> 'idempotency_key' is not null
             order by 1, 2, e.n) s
     where i.project = s.project and i.key = s.key and i.job_id <> s.id
       and not sluice.has_key(i.job_id, i.project, i.key);
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

-- ----------------------------------------------------------------------------- calls whose job or answer is lost
-- Makes room on the ledger for calls of jobs that the database does not know, and so perhaps not their numbers either.
create function sluice.make_room(jobs bigint[]) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    width constant bigint := 10000000;
    part bigint;
begin
    for part in select distinct j.id / width from unnest(make_room.jobs) j(id) order by 1 loop
        if to_regclass(format('sluice.%I', 'attempt_p' || part)) is null then
            perform sluice.make_partitions(part, part);
        end if;
    end loop;
end
$$;

comment on function sluice.make_room is 'Makes the partitions of these job numbers where there are none.';

create or replace function sluice.book_open_call(held sluice.inflight, why text) returns boolean
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
                          when 'lost_answer' then 'what came of the call was written, and the database has lost it, by a failover or a restored backup'
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

-- A call of a lost job (round -1) is of concern to the operator alone: it says nothing of the job that has its number
-- now, and is not for that job's author to see.
create or replace view sluice.attempts with (security_barrier) as
select a.job_id, a.number, a.round, a.provider, a.model, a.rung, a.started_at, a.ended_at, a.first_byte_ms, a.total_ms,
       a.accepted, a.class, a.detail, a.http_status, a.code, a.message, a.retry_at, a.request_id, a.model_served, a.finish,
       a.usage, a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens, a.output_tokens,
       a.reasoning_tokens, round(a.cost_nanos / 1e9, 9) as cost, round(a.uncertain_nanos / 1e9, 9) as uncertain_cost,
       a.price, a.decision, a.answer, j.route, j.project, j.batch, a.placeholder, a.service_tier,
       round(a.reported_cost_nanos / 1e9, 9) as reported_cost, a.cost_source, a.notes
  from sluice.attempt a left join sluice.job j on j.id = a.job_id and a.round >= 0
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.attempts.round is
    'Which round of the job: a retry by hand begins a new one. -1: a call for a job that the database has lost; the job number may be another''s by now.';

-- ------------------------------------------------------------------------------------------------------ grants
-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.whereabouts, sluice.make_partitions, sluice.look_at_timeline, sluice.has_key,
    sluice.make_room from public;
