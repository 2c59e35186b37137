-- What comes in is checked at the cost of one look: the bounds of names and bodies in the look that the queue takes
-- anyway, and idempotency keys by as many descents of an index as there are keys.
--
-- Workers of the version before go on beside it: what they call is there, with the same words.

-- --------------------------------------------------------------------------------------------- who has a key
-- In a statement over many keys it becomes part of the statement, where sluice.key_holder would be planned for each.
create function sluice.key_holders(project text, owner text, key text) returns table (job_id bigint)
    language sql stable as $$
    select min(h.job_id)
      from (select i.job_id from sluice.idempotency i where i.project = $1 and i.owner = $2 and i.key = $3
             union all
            select u.job_id from sluice.idempotency_unowned u where u.project = $1 and u.key = $3) h
           cross join lateral (
            select b.id from sluice.job b
             where b.id = h.job_id and b.project = $1 and b.enqueued_by = $2 and b.idempotency_key = $3 limit 1) j
$$;

comment on function sluice.key_holders is
    'As sluice.key_holder, for statements that ask for many: one row, in which NULL says that no job has the key.';

create or replace function sluice.key_holder(project text, owner text, key text) returns bigint
    language sql stable as $$
    select h.job_id from sluice.key_holders($1, $2, $3) h
$$;

-- ---------------------------------------------------------------------------------------------------- what comes in
-- Before the trigger that puts jobs into the queue, by its name: what the login may. What every job has to keep to is
-- looked at by the other, which reads all rows anyway.
create or replace function sluice.job_bounds() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant text := session_user;
    most bigint;
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
            raise check_violation using
                message = format('%I may not enqueue on route %L in project %L with priority %s',
                                 session_user, refused.route, refused.project, refused.priority),
                hint = 'No row of sluice.allowance lets it in. The owner of the schema sluice can add one.',
                schema = 'sluice', table = 'job', constraint = 'job_allowance';
        end if;
        most := least(most, refused.most);
    end loop;
    if most < 2147483647 then
        if sluice.count_open_jobs(me, greatest(most + 1 - (select count(*) from fresh), 0))
           + (select count(*) from fresh) > most
        then
            raise check_violation using
                message = format('%I may have %s open jobs at most, and with these it would have more',
                                 session_user, most),
                hint = 'Wait until some have ended. The bound stands in sluice.allowance.',
                schema = 'sluice', table = 'job', constraint = 'job_open_jobs';
        end if;
        insert into sluice.open_job (login, job_id) select me, f.id from fresh f on conflict do nothing;
    end if;
    return null;
end
$$;

-- A violated check would quote the row, prompt and all; so the bounds are kept here. Machine code (jit) is not made:
-- that takes longer than it saves, for each statement anew.
create or replace function sluice.job_enqueued() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    keyed bigint;
    kept bigint;
    later bigint;
    batched bigint;
    is_refused boolean;
    may_be_refused boolean;
    longest record;
    bad_priority smallint;
    bad_attempts smallint;
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
        select l.name, max(l.bytes) as bytes, sluice.most_bytes(l.name) as most into longest
          from fresh f cross join lateral (values
                   (1, 'route', octet_length(f.route)), (2, 'project', octet_length(f.project)),
                   (3, 'batch', octet_length(f.batch)), (4, 'enqueued_by', octet_length(f.enqueued_by)),
                   (5, 'custom_id', octet_length(f.custom_id)),
                   (6, 'idempotency_key', octet_length(f.idempotency_key))) l(place, name, bytes)
         where l.bytes > sluice.most_bytes(l.name)
         group by l.place, l.name order by l.place limit 1;
        if found then
            raise check_violation using
                message = format('%s: is %s bytes long; expected at most %s',
                                 longest.name, longest.bytes, longest.most),
                schema = 'sluice', table = 'job', column = longest.name,
                constraint = 'job_' || longest.name || '_bytes';
        end if;
    end if;
    if may_be_refused then
        if exists (select from fresh f
                    where sluice.may_be_too_long(f.request, sluice.most_bytes('request'))
                      and sluice.json_too_long(f.request, sluice.most_bytes('request')))
        then
            raise check_violation using message = 'request: is larger than 32 MB',
                schema = 'sluice', table = 'job', column = 'request', constraint = 'job_request_bytes';
        end if;
        if exists (select from fresh f
                    where sluice.may_be_too_long(f.metadata, sluice.most_bytes('metadata'))
                      and sluice.json_too_long(f.metadata, sluice.most_bytes('metadata')))
        then
            raise check_violation using message = 'metadata: is larger than 1 MB',
                schema = 'sluice', table = 'job', column = 'metadata', constraint = 'job_metadata_bytes';
        end if;
    end if;
    if is_refused then
        select max(priority) filter (where priority not between -1000 and 1000),
               max(max_attempts) filter (where max_attempts <= 0)
          into bad_priority, bad_attempts from fresh;
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
    unknown record;
    ids bigint[];
    holders bigint[];
    wanted bigint;
    kept bigint;
begin
    if jsonb_typeof(enqueue_many.jobs) is distinct from 'array' then
        raise invalid_parameter_value using
            message = 'jobs: expected a JSON array of objects, each with a "request"';
    end if;
    select e.n, k.key into unknown
      from jsonb_array_elements(enqueue_many.jobs) with ordinality e(item, n)
           left join lateral jsonb_object_keys(case jsonb_typeof(e.item) when 'object' then e.item else '{}' end) k(key)
                  on true
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

-- ------------------------------------------------------------------------------------------------------ grants
-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.key_holders from public;
