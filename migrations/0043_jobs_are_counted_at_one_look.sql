-- The trigger of new jobs reads them twice in place of three times. The look that checks them counts them into their
-- batches too, and jobs of one lane, which is what most statements bring, have their flow computed once. Nothing else
-- changes, but for names of batches that are far too long (below).
set local lock_timeout = '5s';

create or replace function sluice.job_enqueued() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    lanes bigint;
    lane_flow bigint;
    keyed bigint;
    kept bigint;
    later bigint;
    is_refused boolean;
    may_be_refused boolean;
    refused record;
    large_request bigint;
    large_metadata bigint;
    clash record;
begin
    -- Every row is looked at once, and counted into its batch. Only where one is refused, or may be, the rows are read
    -- again to say why.
    with looked_at as (
        select route, project, batch, enqueued_by, idempotency_key is not null as has_key, run_at > now() as is_later,
               octet_length(custom_id) > sluice.most_bytes('custom_id')
               or octet_length(idempotency_key) > sluice.most_bytes('idempotency_key')
               or priority not between -1000 and 1000 or max_attempts <= 0 as is_wrong,
               sluice.may_be_too_long(request, sluice.most_bytes('request'))
               or sluice.may_be_too_long(metadata, sluice.most_bytes('metadata')) as is_large
          -- Where there are many lanes, rows go to the disk to be grouped: without their requests.
          from fresh offset 0
    ), lane as (
        select route, project, batch, enqueued_by, count(*) as jobs, count(*) filter (where has_key) as keys,
               count(*) filter (where is_later) as scheduled, bool_or(is_wrong) as is_wrong,
               bool_or(is_large) as is_large,
               octet_length(route) > sluice.most_bytes('route')
               or octet_length(project) > sluice.most_bytes('project')
               or octet_length(batch) > sluice.most_bytes('batch')
               or octet_length(enqueued_by) > sluice.most_bytes('enqueued_by') as is_too_long
          from looked_at group by route, project, batch, enqueued_by
    ), counted as (
        insert into sluice.tally (hour, route, project, batch, login, enqueued)
             select date_trunc('hour', now(), 'UTC'), route, project, batch, enqueued_by, jobs from lane
              where batch is not null and is_too_long is not true
    )
    select count(*), sum(keys), sum(scheduled), bool_or(is_too_long or is_wrong), bool_or(is_large)
      into lanes, keyed, later, is_refused, may_be_refused from lane;
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
    if lanes = 1 then
        lane_flow := (select sluice.flow_of(route, project, batch, enqueued_by) from fresh limit 1);
        insert into sluice.ready (flow, prio, job_id)
             select lane_flow, -priority, id from fresh where run_at is null or run_at <= now();
    else
        insert into sluice.ready (flow, prio, job_id)
             select sluice.flow_of(route, project, batch, enqueued_by), -priority, id from fresh
              where run_at is null or run_at <= now();
    end if;
    if later > 0 then
        insert into sluice.parked (job_id, run_at, flow, prio, reason)
             select id, run_at, sluice.flow_of(route, project, batch, enqueued_by), -priority, 'scheduled' from fresh
              where run_at > now();
    end if;
    return null;
end
$$;

-- A name of a batch that no index can hold was refused by the index, in words that name neither the column nor the
-- bound. Shorter ones that are too long are refused by the trigger above, which knows which row it is.
create function sluice.job_batch_bound() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise check_violation using
        message = format('batch: is %s bytes long; expected at most %s', octet_length(new.batch),
                         sluice.most_bytes('batch')),
        schema = 'sluice', table = 'job', column = 'batch', constraint = 'job_batch_bytes';
end
$$;

revoke execute on function sluice.job_batch_bound from public;

create trigger job_batch_bound before insert on sluice.job for each row
    when (octet_length(new.batch) > 2000)
    execute function sluice.job_batch_bound();
