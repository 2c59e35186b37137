-- Of thousands of jobs that come in together, the one that is refused is named: by its place in the array that
-- sluice.enqueue_many was given (jobs[17].priority), or by its row in the statement (in the detail of the error).
-- Values that the server itself would refuse are refused before it sees them, since it would quote them.
--
-- The places cost nothing as long as nothing is refused: the trigger finds out by the job's number. Workers of the
-- version before go on beside it: what they call is there, and takes and returns the same.

-- ------------------------------------------------------------------------------------------------- how it is said
create function sluice.refuse(state text, member text, said text, condition text) returns void
    language plpgsql as $$
begin
    raise exception using errcode = state, message = member || ': ' || said, schema = 'sluice', table = 'job',
        column = regexp_replace(member, '^jobs[[][0-9]+[]][.]', ''), constraint = condition;
end
$$;

comment on function sluice.refuse is
    'Refuses a value of a job: the SQLSTATE, the member (with its place, if it has one), what is wrong with it, and the constraint that it violates.';

create function sluice.refuse_length(place text, name text, value text) returns void
    language sql as $$
    select sluice.refuse('23514', $1 || $2, format('is %s bytes long; expected at most %s',
                                                   octet_length($3), sluice.most_bytes($2)), 'job_' || $2 || '_bytes')
$$;

comment on function sluice.refuse_length is 'Refuses a name that is too long, without quoting it.';

-- sluice.enqueue_many leaves the numbers of its jobs, in the order of the array, where the triggers find them. A login
-- that writes something else there changes the words of its own errors, and nothing else.
create function sluice.refuse_job(job_id bigint, all_ids bigint[], name text, condition text, said text,
                                  advice text default null) returns void
    language plpgsql as $$
declare
    place constant bigint :=
        array_position(string_to_array(current_setting('sluice.places', true), ','), job_id::text) - 1;
    -- These say themselves what they are about.
    is_sentence constant boolean := condition in ('job_allowance', 'job_open_jobs', 'job_idempotency_key');
    state constant text := case condition when 'job_idempotency_key' then '23505' else '23514' end;
    words constant text := case when place is null and is_sentence then said
                                when place is null then format('%s: %s', name, said)
                                when name = 'enqueued_by' then format('jobs[%s]: %s', place, said)
                                else format('jobs[%s].%s: %s', place, name, said) end;
    row_of_statement text;
begin
    -- Without a number where another session's job ended in between, and there would be room now.
    if place is null and job_id is not null and cardinality(all_ids) > 1 then
        row_of_statement := format('Row %s of %s of the statement, in the order of job numbers.',
                                   (select count(*) from unnest(all_ids) i where i <= job_id), cardinality(all_ids));
    end if;
    if row_of_statement is not null and advice is not null then
        raise exception using errcode = state, message = words, detail = row_of_statement, hint = advice,
            schema = 'sluice', table = 'job', column = name, constraint = condition;
    elsif row_of_statement is not null then
        raise exception using errcode = state, message = words, detail = row_of_statement,
            schema = 'sluice', table = 'job', column = name, constraint = condition;
    elsif advice is not null then
        raise exception using errcode = state, message = words, hint = advice,
            schema = 'sluice', table = 'job', column = name, constraint = condition;
    end if;
    raise exception using errcode = state, message = words,
        schema = 'sluice', table = 'job', column = name, constraint = condition;
end
$$;

comment on function sluice.refuse_job is
    'Refuses a job that was inserted, one of these: by its place in the array of sluice.enqueue_many, or by its row.';

create function sluice.kind_of(value jsonb) returns text
    language sql immutable as $$
    select case jsonb_typeof($1) when 'object' then 'an object' when 'array' then 'an array'
                                 when 'string' then 'a string' when 'boolean' then 'a boolean'
                                 when 'number' then case when length($1::text) <= 20 then $1::text
                                                         else 'a number of ' || length($1::text) || ' characters' end
                                 else 'null' end
$$;

comment on function sluice.kind_of is 'A JSON value in words: what it is, and only of a number which.';

-- ------------------------------------------------------------------------------------ what enqueue_many was given
create function sluice.refuse_shape(jobs jsonb, members text[]) returns void
    language plpgsql as $$
declare
    job jsonb;
    place text;
begin
    select e.item, format('jobs[%s]', e.n - 1) into job, place
      from jsonb_array_elements(jobs) with ordinality e(item, n)
     where case when jsonb_typeof(e.item) = 'object'
                then not e.item ? 'request' or e.item @> '{"request": null}' or e.item - members <> '{}'
                else true end
     order by e.n limit 1;
    if not found then
        return;
    end if;
    if jsonb_typeof(job) <> 'object' then
        raise invalid_parameter_value using
            message = format('%s: expected an object with "request" and the columns of sluice.job, found %s',
                             place, sluice.kind_of(job));
    end if;
    if not job ? 'request' then
        raise invalid_parameter_value using message = place || '.request: is missing; expected a request';
    end if;
    if job @> '{"request": null}' then
        perform sluice.refuse('23502', place || '.request', 'is NULL; expected a request', '');
    end if;
    raise invalid_parameter_value using
        message = format('%s.%s: is no member of a job; expected one of %s', place,
                         (select case when length(min(k)) > 60 then left(min(k), 60) || '…' else min(k) end
                            from jsonb_object_keys(job - members) k),
                         array_to_string(members, ', '));
end
$$;

comment on function sluice.refuse_shape is
    'Refuses the first of these jobs that is no object, has no request, or has a member that no job has; none, when there is none.';

create function sluice.refuse_value(jobs jsonb, ids bigint[], route text, project text, batch text) returns void
    language plpgsql as $$
#variable_conflict use_variable
declare
    -- Each may come from the options for all. Those of a job alone come after them.
    names constant text[] := '{route,project,batch,custom_id,idempotency_key}';
    options constant text[] := array[route, project, batch];
    item jsonb;
    place text;
    name text;
    value text;
    is_read boolean;
begin
    for item, place in
        select e.item, format('jobs[%s].', e.n - 1)
          from rows from (jsonb_array_elements(jobs), unnest(ids)) with ordinality e(item, id, n)
         where e.id is not null order by e.n
    loop
        for number in 1 .. cardinality(names) loop
            name := names[number];
            value := item ->> name;
            if octet_length(value) > sluice.most_bytes(name) then
                perform sluice.refuse_length(place, name, value);
            elsif value is null and octet_length(options[number]) > sluice.most_bytes(name) then
                perform sluice.refuse_length('', name, options[number]);
            elsif coalesce(value, options[number]) is null and name in ('route', 'project') then
                perform sluice.refuse('23502', place || name,
                                      format('is missing, and the option %s of sluice.enqueue_many is NULL', name), '');
            end if;
        end loop;
        foreach name in array array['priority', 'max_attempts', 'run_at', 'deadline'] loop
            value := item ->> name;
            continue when value is null;
            begin
                is_read := case when name in ('run_at', 'deadline') then value::timestamptz is not null
                                else value::smallint is not null end;
            exception when data_exception then
                is_read := false;
            end;
            continue when is_read;
            if name in ('run_at', 'deadline') then
                perform sluice.refuse('22007', place || name, 'expected an instant such as 2026-08-01T06:00:00Z, found '
                    || case jsonb_typeof(item -> name) when 'string' then 'another string'
                                                       else sluice.kind_of(item -> name) end, '');
            end if;
            perform sluice.refuse(
                case when value ~ '^ *[-+]?[0-9]+ *$' then '23514' else '22P02' end, place || name,
                format('expected a whole number from %s, found %s',
                       case name when 'priority' then '-1000 to 1000' else '1 to 32767' end,
                       sluice.kind_of(item -> name)),
                'job_' || name || '_check');
        end loop;
    end loop;
end
$$;

comment on function sluice.refuse_value is
    'Refuses the first value of these jobs that cannot be inserted; none, when there is none. Jobs without a number are not going to be.';

-- ---------------------------------------------------------------------------------------------------- what comes in
create or replace function sluice.job_bounds() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant text := session_user;
    most bigint;
    open_before bigint;
    refused record;
begin
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
          from (select j.route, j.project, max(j.priority) as priority from fresh j
                -- Longer names are refused after this, without being quoted.
                where octet_length(j.route) <= sluice.most_bytes('route')
                  and octet_length(j.project) <= sluice.most_bytes('project')
                group by j.route, j.project) f
               left join lateral (
                   select max(coalesce(w.open_jobs, 2147483647)) as most
                     from sluice.allowance w
                    where w.login in (me, '*') and (w.route is null or w.route = f.route)
                      and (w.project is null or w.project = f.project)
                      and (w.priority is null or w.priority >= f.priority)) a on true
    loop
        if refused.most is null then
            -- The first job that is not let in. It may have a lower priority than others of its route and project.
            select f.id, f.route, f.project, f.priority into refused
              from fresh f
             where octet_length(f.route) <= sluice.most_bytes('route')
               and octet_length(f.project) <= sluice.most_bytes('project')
               and not exists (select from sluice.allowance w
                                where w.login in (me, '*') and (w.route is null or w.route = f.route)
                                  and (w.project is null or w.project = f.project)
                                  and (w.priority is null or w.priority >= f.priority))
             order by f.id limit 1;
            perform sluice.refuse_job(
                refused.id, (select array_agg(f.id) from fresh f), 'enqueued_by', 'job_allowance',
                format('%I may not enqueue on route %L in project %L with priority %s',
                       session_user, refused.route, refused.project, refused.priority),
                'No row of sluice.allowance lets it in. The owner of the schema sluice can add one.');
        end if;
        most := least(most, refused.most);
    end loop;
    if most < 2147483647 then
        if sluice.count_open_jobs(me, greatest(most + 1 - (select count(*) from fresh), 0))
           + (select count(*) from fresh) > most
        then
            -- The first job for which there is no room.
            open_before := sluice.count_open_jobs(me, most);
            perform sluice.refuse_job(
                (select f.id from fresh f order by f.id offset most - open_before limit 1),
                (select array_agg(f.id) from fresh f), 'enqueued_by', 'job_open_jobs',
                format('%I may have %s open jobs at most, and with these it would have more', session_user, most),
                'Wait until some have ended. The bound stands in sluice.allowance.');
        end if;
        insert into sluice.open_job (login, job_id) select me, f.id from fresh f on conflict do nothing;
    end if;
    return null;
end
$$;

create or replace function sluice.job_enqueued() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    keyed bigint;
    kept bigint;
    later bigint;
    batched bigint;
    is_refused boolean;
    may_be_refused boolean;
    refused record;
    large_request bigint;
    large_metadata bigint;
    clash record;
begin
    -- Every row is looked at once. Only where one is refused, or may be, the rows are read again to say why.
    select count(idempotency_key), count(*) filter (where run_at > now()), count(batch),
           bool_or(octet_length(route) > sluice.most_bytes('route')
                   or octet_length(project) > sluice.most_bytes('project')
                   or octet_length(batch) > sluice.most_bytes('batch')
                   or octet_length(enqueued_by) > sluice.most_bytes('enqueued_by')
                   or octet_length(custom_id) > sluice.most_bytes('custom_id')
                   or octet_length(idempotency_key) > sluice.most_bytes('idempotency_key')
                   or priority not between -1000 and 1000 or max_attempts <= 0),
           bool_or(sluice.may_be_too_long(request, sluice.most_bytes('request'))
                   or sluice.may_be_too_long(metadata, sluice.most_bytes('metadata')))
      into keyed, later, batched, is_refused, may_be_refused from fresh;
    if is_refused then
        select f.id, l.name, l.said, l.condition into refused
          from fresh f cross join lateral (
                   select v.place, v.name, 'job_' || v.name || '_bytes' as condition,
                          format('is %s bytes long; expected at most %s', v.bytes, sluice.most_bytes(v.name)) as said
                     from (values (1, 'route', octet_length(f.route)), (2, 'project', octet_length(f.project)),
                                  (3, 'batch', octet_length(f.batch)), (4, 'enqueued_by', octet_length(f.enqueued_by)),
                                  (5, 'custom_id', octet_length(f.custom_id)),
                                  (6, 'idempotency_key', octet_length(f.idempotency_key))) v(place, name, bytes)
                    where v.bytes > sluice.most_bytes(v.name)
                    union all
                   select 7, 'priority', 'job_priority_check',
                          format('expected a number from -1000 to 1000, found %s', f.priority)
                    where f.priority not between -1000 and 1000
                    union all
                   select 8, 'max_attempts', 'job_max_attempts_check',
                          format('expected a number above 0, found %s', f.max_attempts)
                    where f.max_attempts <= 0) l
         order by f.id, l.place limit 1;
        if found then
            perform sluice.refuse_job(refused.id, (select array_agg(f.id) from fresh f), refused.name,
                                      refused.condition, refused.said);
        end if;
    end if;
    if may_be_refused then
        select min(f.id) filter (where sluice.may_be_too_long(f.request, sluice.most_bytes('request'))
                                       and sluice.json_too_long(f.request, sluice.most_bytes('request'))),
               min(f.id) filter (where sluice.may_be_too_long(f.metadata, sluice.most_bytes('metadata'))
                                       and sluice.json_too_long(f.metadata, sluice.most_bytes('metadata')))
          into large_request, large_metadata from fresh f;
        if large_request <= coalesce(large_metadata, large_request) then
            perform sluice.refuse_job(large_request, (select array_agg(f.id) from fresh f), 'request',
                                      'job_request_bytes', 'is larger than 32 MB');
        elsif large_metadata is not null then
            perform sluice.refuse_job(large_metadata, (select array_agg(f.id) from fresh f), 'metadata',
                                      'job_metadata_bytes', 'is larger than 1 MB');
        end if;
    end if;
    if keyed > 0 then
        insert into sluice.idempotency (project, owner, key, job_id)
             select project, enqueued_by, idempotency_key, id from fresh
              where idempotency_key is not null order by 1, 2, 3, 4
        on conflict do nothing;
        get diagnostics kept = row_count;
        -- Where all keys were new, and none is left from before keys had owners, nothing is looked up.
        for clash in
            select f.id, f.project, f.enqueued_by, f.idempotency_key, null::bigint as job_id
              from fresh f
             where (kept < keyed or exists (select from sluice.idempotency_unowned)) and f.idempotency_key is not null
               -- By the whole of the primary key, row by row: a planner that knows nothing of the tables yet would
               -- read all keys of the project for each row.
               and ((select i.job_id from sluice.idempotency i
                      where i.project = f.project and i.owner = f.enqueued_by and i.key = f.idempotency_key) <> f.id
                    or (select u.job_id from sluice.idempotency_unowned u
                         where u.project = f.project and u.key = f.idempotency_key) <> f.id)
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
            perform sluice.refuse_job(
                clash.id, (select array_agg(f.id) from fresh f), 'idempotency_key', 'job_idempotency_key',
                format('idempotency key %L of project %L belongs to job %s already',
                       clash.idempotency_key, clash.project, clash.job_id),
                'sluice.enqueue(…, idempotency_key => …) returns the first job instead of failing.');
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
        -- The key is written before its job, and the table of keys would refuse it in other words.
        if project is null then
            perform sluice.refuse('23502', 'project', 'is NULL; leave the column out for its default', '');
        end if;
        if octet_length(project) > sluice.most_bytes('project') then
            perform sluice.refuse_length('', 'project', project);
        end if;
        if octet_length(idempotency_key) > sluice.most_bytes('idempotency_key') then
            perform sluice.refuse_length('', 'idempotency_key', idempotency_key);
        end if;
    end if;
    -- What is beyond the type of the column would be refused without its name.
    if priority not between -1000 and 1000 then
        perform sluice.refuse('23514', 'priority',
                              format('expected a number from -1000 to 1000, found %s', priority), 'job_priority_check');
    end if;
    if max_attempts not between 1 and 32767 then
        perform sluice.refuse('23514', 'max_attempts',
                              format(case when max_attempts > 0 then 'expected a number from 1 to 32767, found %s'
                                          else 'expected a number above 0, found %s' end, max_attempts),
                              'job_max_attempts_check');
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

create or replace function sluice.enqueue_many(
    jobs    jsonb,
    route   text default 'default',
    project text default 'default',
    batch   text default null
) returns table (ordinal bigint, job_id bigint, existing boolean)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare
    me constant text := session_user;
    members constant text[] := array['request', 'route', 'project', 'batch', 'custom_id', 'priority', 'run_at',
                                     'deadline', 'max_attempts', 'idempotency_key', 'metadata'];
    is_misshapen boolean;
    may_be_refused boolean;
    values_read bigint;
    ids bigint[];
    holders bigint[];
    wanted bigint;
    kept bigint;
begin
    if jsonb_typeof(enqueue_many.jobs) is distinct from 'array' then
        raise invalid_parameter_value using
            message = 'jobs: expected a JSON array of objects, each with a "request"';
    end if;
    -- One look at all. Only where one is refused, or may be, they are looked at again to say which, and why. Types of
    -- columns and the table of keys would refuse a value without its place, so that is left to neither; the other
    -- bounds are kept by the triggers, which are told the places.
    begin
        select coalesce(bool_or(case when jsonb_typeof(e.item) = 'object'
                                     then not e.item ? 'request' or e.item @> '{"request": null}'
                                          or e.item - members <> '{}'
                                     else true end), false),
               coalesce(bool_or(octet_length(e.item ->> 'idempotency_key') > sluice.most_bytes('idempotency_key')
                                or octet_length(e.item ->> 'project') > sluice.most_bytes('project')), false),
               count((e.item ->> 'priority')::smallint) + count((e.item ->> 'max_attempts')::smallint)
               + count((e.item ->> 'run_at')::timestamptz) + count((e.item ->> 'deadline')::timestamptz)
          into is_misshapen, may_be_refused, values_read
          -- In the list, it is read as it comes, and not kept.
          from (select jsonb_array_elements(enqueue_many.jobs) as item offset 0) e;
    exception when data_exception then
        is_misshapen := true;
        may_be_refused := true;
    end;
    if is_misshapen then
        perform sluice.refuse_shape(enqueue_many.jobs, members);
    end if;
    -- Every job has its number before anything is written: so it is told from one that had the key before it. None is
    -- taken for a job whose key is known, from before or from earlier in the array.
    select array_agg(o.holder order by o.n),
           array_agg(case when o.needs_one then nextval('sluice.job_id_seq') end order by o.n),
           count(*) filter (where o.needs_one and o.key is not null)
      into holders, ids, wanted
      from (select k.n, k.key, k.holder, k.key is null or (k.nth = 1 and k.holder is null) as needs_one
              from (select e.n, e.key, row_number() over (partition by e.project, e.key order by e.n) as nth,
                           case when e.key is not null
                                then (select h.job_id from sluice.key_holders(e.project, me, e.key) h) end as holder
                      from (select j.n, coalesce(j.item ->> 'project', enqueue_many.project) as project,
                                   j.item ->> 'idempotency_key' as key
                              from jsonb_array_elements(enqueue_many.jobs) with ordinality j(item, n)) e
                    offset 0) k
             order by k.n) o;
    if may_be_refused or enqueue_many.route is null or enqueue_many.project is null
       or octet_length(enqueue_many.route) > sluice.most_bytes('route')
       or octet_length(enqueue_many.project) > sluice.most_bytes('project')
       or octet_length(enqueue_many.batch) > sluice.most_bytes('batch')
    then
        perform sluice.refuse_value(enqueue_many.jobs, ids, enqueue_many.route, enqueue_many.project,
                                    enqueue_many.batch);
    end if;
    -- The arrays are read along with the jobs: to find one number among many that may be null, all before it are read.
    insert into sluice.idempotency (project, owner, key, job_id)
         select coalesce(e.item ->> 'project', enqueue_many.project), me, e.item ->> 'idempotency_key', e.id
           from rows from (jsonb_array_elements(enqueue_many.jobs), unnest(ids)) e(item, id)
          where e.id is not null and e.item ->> 'idempotency_key' is not null
          order by 1, 2, 3
    on conflict do nothing;
    get diagnostics kept = row_count;
    -- From here on in statements of their own, so that they see the keys which another session committed meanwhile.
    -- A key whose job is not there any more goes to the first job that comes with it.
    if kept < wanted then
        update sluice.idempotency i set job_id = s.id, created_at = now()
          from (select coalesce(e.item ->> 'project', enqueue_many.project) as project,
                       e.item ->> 'idempotency_key' as key, e.id
                  from rows from (jsonb_array_elements(enqueue_many.jobs), unnest(ids)) e(item, id)
                 where e.id is not null and e.item ->> 'idempotency_key' is not null) s
         where i.project = s.project and i.owner = me and i.key = s.key and i.job_id <> s.id
           and not exists (select from sluice.job j where j.id = i.job_id and j.project = i.project
                              and j.enqueued_by = i.owner and j.idempotency_key = i.key);
    end if;
    perform set_config('sluice.places', array_to_string(ids, ',', ''), true);
    insert into sluice.job (id, route, project, batch, custom_id, priority, run_at, deadline, max_attempts,
                            idempotency_key, metadata, request)
         select e.id, coalesce(r.route, enqueue_many.route), coalesce(r.project, enqueue_many.project),
                coalesce(r.batch, enqueue_many.batch), r.custom_id, coalesce(r.priority, 0::smallint), r.run_at,
                r.deadline, r.max_attempts, r.idempotency_key, r.metadata, r.request
           from rows from (jsonb_array_elements(enqueue_many.jobs), unnest(ids)) with ordinality e(item, id, n)
                cross join lateral jsonb_to_record(e.item) r(request jsonb, route text, project text, batch text,
                     custom_id text, priority smallint, run_at timestamptz, deadline timestamptz,
                     max_attempts smallint, idempotency_key text, metadata jsonb)
          where e.id is not null
            and (r.idempotency_key is null
                 or (select i.job_id from sluice.idempotency i
                      where i.project = coalesce(r.project, enqueue_many.project) and i.owner = me
                        and i.key = r.idempotency_key) = e.id)
          order by e.n;
    perform set_config('sluice.places', '', true);
    -- Which job has a key that was not known is looked up once more: another session of this login may have been first,
    -- or an earlier job of the array.
    return query
    with told as materialized (
        select e.n, e.id, e.key,
               case when e.key is null then null
                    when e.holder is not null then e.holder
                    -- As nearly all: it has just been put there.
                    when e.id = (select i.job_id from sluice.idempotency i
                                  where i.project = e.project and i.owner = me and i.key = e.key) then e.id
                    else (select k.job_id from sluice.key_holders(e.project, me, e.key) k) end as holder
          from (select j.n, j.id, j.holder, coalesce(j.item ->> 'project', enqueue_many.project) as project,
                       j.item ->> 'idempotency_key' as key
                  from rows from (jsonb_array_elements(enqueue_many.jobs), unnest(ids), unnest(holders))
                       with ordinality j(item, id, holder, n)) e
    )
    select t.n, coalesce(t.holder, t.id), t.key is not null and t.holder is distinct from t.id
      from told t order by t.n;
end
$$;

comment on function sluice.enqueue_many is
    'Enqueues a JSON array of objects, each with "request" and any columns of sluice.job, in one statement. Returns a row for each: its ordinal, counted from 1, its job id, and whether an earlier job had its idempotency key. An error names the job at fault as jobs[i], counted from 0 as in JSON, and its member.';

-- ------------------------------------------------------------------------------------------------------ grants
-- All of them are called by functions that act for the owner.
revoke execute on function sluice.refuse from public;
revoke execute on function sluice.refuse_length from public;
revoke execute on function sluice.refuse_job from public;
revoke execute on function sluice.kind_of from public;
revoke execute on function sluice.refuse_shape from public;
revoke execute on function sluice.refuse_value from public;
