-- What a batch has already, so that the same file again does not buy everything again; why a job that is ready is not
-- taken; and values of a job that are refused without quoting the row.
--
-- Nothing that workers of the version before rest on is changed, so they go on beside it.

-- ------------------------------------------------------------------------------- what a batch has already
create function sluice.batch_standing(
    batch           text,
    out jobs        bigint,
    out ended       bigint,
    out routes      text[],
    out projects    text[],
    out of_others   boolean,
    out dropped     boolean
) language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(sum(t.enqueued), 0)::bigint,
           coalesce(sum(t.succeeded + t.failed + t.cancelled), 0)::bigint,
           coalesce(array_agg(distinct t.route) filter (where t.enqueued > 0), '{}'),
           coalesce(array_agg(distinct t.project) filter (where t.enqueued > 0), '{}'),
           not sluice.sees_all()
               and exists (select from sluice.job j where j.batch = $1 and j.enqueued_by <> session_user),
           exists (select from sluice.retired)
      from sluice.totals t where t.batch = $1 and t.batch <> ''
$$;

comment on function sluice.batch_standing is
    'What the sums say of a batch, of whoever its jobs are: how many there are and how many have ended, on which routes and in which projects, whether some are of other logins (NULL or false for those who see all), and whether retention has dropped jobs of any batch. jobs is 0 when no job ever had it.';

-- Equal lines of a file have equal digests, however they are spelt: white space, the order of members and escapes do
-- not matter to jsonb. sha256, because md5 is forbidden on some servers.
create function sluice.line_digest(request jsonb, metadata jsonb) returns bytea
    language sql immutable parallel safe
    return substr(sha256(convert_to(request::text || chr(10) || coalesce(metadata::text, ''), 'UTF8')), 1, 16);

comment on function sluice.line_digest is 'By what a job without a custom_id is known again: 16 bytes of a hash of request and metadata.';

create function sluice.batch_lines(batch text) returns table (custom_id text, digest bytea)
    language sql stable security definer set search_path = pg_catalog, pg_temp rows 100000 as $$
    select j.custom_id,
           case when j.custom_id is null or row_number() over (order by j.id) <= 100
                then sluice.line_digest(j.request, j.metadata) end
      from sluice.job j
     where j.batch = $1 and (j.enqueued_by = session_user or (select sluice.sees_all()))
$$;

comment on function sluice.batch_lines is
    'One row for each job of a batch that this login may see: its custom_id, and the digest of its line where it has none, and of the first hundred.';

-- ---------------------------------------------------------------------------- why a job that is ready is not taken
-- What live workers say of themselves: for which batch alone they work, which routes they know, and what the jobs of a
-- route wait for where none of them may be started. Workers of the version before say nothing of routes.
create view sluice.claimers as
select coalesce(jsonb_agg(jsonb_build_object('only', w.stats -> 'only_batch', 'routes', w.stats -> 'routes',
                                             'waits', w.stats -> 'waits')), '[]') as said
  from sluice.worker w
 where w.state = 'live' and w.lease_until > now() and w.stats -> 'stopping' is distinct from 'true'::jsonb;

comment on view sluice.claimers is 'One row: what the workers that take jobs say of what they may take. Read sluice.jobs.waits_for.';

create function sluice.nobody_takes(claimers jsonb, route text, batch text) returns text
    language sql immutable parallel safe
    begin atomic
        with claimer as (
            select c.it -> 'routes' as routes, c.it -> 'waits' -> nobody_takes.route as waits
              from jsonb_array_elements(claimers) c(it)
             where coalesce(c.it ->> 'only', nobody_takes.batch, '') = coalesce(nobody_takes.batch, '')
        )
        select case
                   when count(*) = 0 then 'no worker'
                   when bool_and(jsonb_typeof(routes) = 'array' and not routes ? nobody_takes.route)
                       then 'no worker knows the route'
                   -- One that knows the route and names nothing takes them, as far as is known.
                   when bool_or(waits is null and (jsonb_typeof(routes) is distinct from 'array'
                                                   or routes ? nobody_takes.route)) then null
                   else min(waits ->> 'for')
               end
          from claimer;
    end;

comment on function sluice.nobody_takes is
    'Why no worker takes ready jobs of a route and batch, from what sluice.claimers says; NULL when that is not known, or one takes them.';

create or replace view sluice.jobs with (security_barrier) as
select j.id,
       coalesce(r.state, case when i.job_id is not null then 'running' else 'queued' end) as state,
       j.route, j.project, j.batch, j.custom_id, j.priority, j.run_at, j.deadline, j.max_attempts,
       j.idempotency_key, j.metadata, j.created_at, r.finished_at,
       coalesce(r.attempts, i.attempts, p.attempts, q.attempts, 0::smallint) as attempts,
       case when r.job_id is null then p.run_at end as waits_until,
       case when r.job_id is null and i.job_id is null then
           case when p.reason = 'paused' then p.reason
                when ('batch', j.batch) in (select u.kind, u.name from sluice.pause u) then 'batch paused'
                when ('route', j.route) in (select u.kind, u.name from sluice.pause u) then 'route paused'
                when ('project', j.project) in (select u.kind, u.name from sluice.pause u) then 'project paused'
                when p.job_id is not null then p.reason
                when q.job_id is not null
                    then sluice.nobody_takes((select c.said from sluice.claimers c), j.route, j.batch)
           end
       end as waits_for,
       j.request
  from sluice.job j
       left join sluice.result r on r.job_id = j.id
       left join sluice.inflight i on i.job_id = j.id
       left join sluice.parked p on p.job_id = j.id
       left join sluice.ready q on q.flow = sluice.flow_of(j.route, j.project, j.batch) and q.prio = -j.priority
             and q.job_id = j.id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.jobs.waits_for is
    'What a queued job waits for: paused, batch paused, route paused, project paused, scheduled, no worker, no worker knows the route, or a target and why it cannot be called. NULL: it runs or has ended, or nothing is known to be in its way.';

-- ----------------------------------------------------------------------------- values that are refused discreetly The
-- detail of a violated check quotes the row, prompt and all, to the application's log and the server's. The trigger,
-- which sees all rows of the statement, says the same without it.
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

alter table sluice.job drop constraint job_priority_check, drop constraint job_max_attempts_check;

-- ------------------------------------------------------------------------------------------------------ grants
-- Every `sluice migrate` grants what else the roles need (src/store/roles.rs). What anybody may call decides nothing.
revoke execute on function sluice.batch_standing, sluice.batch_lines from public;
grant execute on function sluice.line_digest, sluice.nobody_takes to public;
