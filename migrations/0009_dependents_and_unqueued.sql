-- What keeps an old partition from being dropped is named, and keys of idempotency go after their jobs; and jobs that came
-- in while triggers were off are found, told apart from those that wait, and put into the queue.
--
-- Workers of the version before go on beside it: a step of retention that ends in a word they do not know is nothing to them.

-- ----------------------------------------------------------------------------------- what depends on a partition
alter table sluice.retiring add column dependents text[];

comment on column sluice.retiring.dependents is
    'What of somebody else depends on its tables: the partition stays until that is gone.';
comment on column sluice.retiring.keys_to is
    'Idempotency keys of its jobs are cleared in the pages below this one, once its tables are dropped.';

create function sluice.dependents(part bigint) returns text[]
    language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive gone(classid, objid) as (
        select 'pg_class'::regclass::oid, c.oid
          from pg_class c
         where c.oid in (to_regclass('sluice.job_p' || $1), to_regclass('sluice.attempt_p' || $1),
                         to_regclass('sluice.result_p' || $1))
         union
        -- What goes along unasked: types, indexes, triggers, statistics, sequences of a column.
        select d.classid, d.objid
          from gone g join pg_depend d on d.refclassid = g.classid and d.refobjid = g.objid
         where d.deptype in ('a', 'i', 'P', 'S')
    ), needing as (
        select d.classid, d.objid, d.objsubid
          from gone g join pg_depend d on d.refclassid = g.classid and d.refobjid = g.objid
         where d.deptype = 'n'
           and not exists (select from gone o where o.classid = d.classid and o.objid = d.objid)
         union
        -- A table that belongs to an extension.
        select d.refclassid, d.refobjid, 0
          from gone g join pg_depend d on d.classid = g.classid and d.objid = g.objid
         where d.deptype = 'e'
    ), named as (
        select case
                   -- A view depends by its rule,
                   when v.oid is not null then pg_describe_object('pg_class'::regclass, v.oid, 0)
                   -- and a foreign key has one of its own for each partition.
                   when c.oid is not null then pg_describe_object('pg_constraint'::regclass, c.oid, 0)
                   else pg_describe_object(n.classid, n.objid, n.objsubid)
               end as name
          from needing n
               left join pg_rewrite w on n.classid = 'pg_rewrite'::regclass and w.oid = n.objid and w.rulename = '_RETURN'
               left join pg_class v on v.oid = w.ev_class
               left join lateral (
                   with recursive above as (
                       select k.oid, k.conparentid from pg_constraint k
                        where n.classid = 'pg_constraint'::regclass and k.oid = n.objid
                        union all
                       select k.oid, k.conparentid from above a join pg_constraint k on k.oid = a.conparentid
                   )
                   select a.oid from above a where a.conparentid = 0
               ) c on true
    )
    select coalesce(array_agg(distinct name order by name), '{}') from named
$$;

comment on function sluice.dependents is
    'What of somebody else depends on the tables of a partition, in words: foreign keys, views, functions. Retention drops none of it, and so keeps the partition.';

create or replace function sluice.retire(keep interval, out outcome text, out partition bigint, out detail bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
#variable_conflict use_column
declare
    width constant bigint := 10000000;
    -- So many jobs are counted in one transaction, …
    at_once constant integer := 50000;
    -- … and so many pages are searched for keys.
    pages constant bigint := 1000;
    -- All locks together may take so long.
    patience constant interval := '200 milliseconds';
    p bigint;
    held sluice.retiring;
    slice record;
    ended record;
    tried record;
    upto bigint;
    open_id bigint;
    last_page bigint;
    deadline timestamptz;
    relation text;
    base text;
    young timestamptz := now() - keep;
    found_one boolean := false;
    needed_by text[];
begin
    if keep < interval '1 hour' or keep is null then
        raise invalid_parameter_value using message = 'keep: expected an hour at least';
    end if;
    -- Each statement has to see what was committed before it.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise invalid_parameter_value using message = 'sluice.retire needs a transaction that is read committed';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('sluice.retire', 0)) then
        outcome := 'elsewhere';
        return;
    end if;

    -- Keys go after their jobs: a key whose job is still there must never be used again. Until they are gone, they stand for
    -- a job that was there a moment before.
    select r.* into held
      from sluice.retiring r join sluice.retired d on d.part = r.part
     where to_regclass(format('sluice.%I', 'job_p' || r.part)) is null
     order by r.part limit 1;
    if found then
        partition := held.part;
        last_page := pg_relation_size('sluice.idempotency') / current_setting('block_size')::bigint;
        if held.keys_to < last_page then
            -- Whoever has met a key, and is about to read whose it is, holds a lock that this waits for.
            lock table sluice.idempotency in share row exclusive mode;
            delete from sluice.idempotency k
             where k.ctid >= format('(%s,0)', held.keys_to)::tid and k.ctid < format('(%s,0)', held.keys_to + pages)::tid
               and k.job_id >= held.part * width and k.job_id < (held.part + 1) * width;
            update sluice.retiring r set keys_to = held.keys_to + pages where r.part = held.part;
            outcome := 'keys';
            return;
        end if;
        delete from sluice.retiring r where r.part = held.part;
        outcome := 'dropped';
        detail := held.jobs;
        return;
    end if;

    -- The first partition that may perhaps go. What is known to keep one is looked at first, and costs next to nothing.
    for p in
        select substring(c.relname from '^job_p(\d+)$')::bigint
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'sluice.job'::regclass and c.relname ~ '^job_p\d+$'
           and substring(c.relname from '^job_p(\d+)$')::bigint < (select last_value / width from sluice.job_id_seq)
         order by 1
    loop
        select * into held from sluice.retiring r where r.part = p;
        if held.part is not null and held.dependents is null then
            continue when held.youngest > young;
            if held.open_job is not null then
                execute format('select job_id from sluice.%I where job_id = $1', 'result_p' || p)
                   into open_id using held.open_job;
                continue when open_id is null;
            end if;
        else
            execute format('select j.id, j.created_at, r.finished_at
                              from (select id, created_at from sluice.%I order by id desc limit 1) j
                                   left join sluice.%I r on r.job_id = j.id', 'job_p' || p, 'result_p' || p)
               into slice;
            continue when slice.id is not null and (slice.created_at > young or slice.finished_at is null or
                                                    slice.finished_at > young);
        end if;
        -- Before anything else: what cannot be dropped is neither watched nor counted.
        needed_by := sluice.dependents(p);
        if needed_by <> '{}' then
            -- It was said already.
            continue when held.dependents = needed_by;
            delete from sluice.retiring r where r.part = p;
            insert into sluice.retiring (part, counted_to, dependents) values (p, p * width, needed_by);
            outcome := 'needed';
            partition := p;
            return;
        end if;
        if held.dependents is not null then
            delete from sluice.retiring r where r.part = p;
            held := null;
        end if;
        found_one := true;
        exit;
    end loop;
    if not found_one then
        outcome := 'nothing';
        return;
    end if;
    partition := p;

    if held.part is null then
        -- Waits for whoever has changed a row and not yet committed. From the commit on every change is noted.
        foreach base in array array['job', 'result', 'attempt'] loop
            execute format('create or replace trigger retiring after insert or update or delete on sluice.%I
                for each row execute function sluice.touch_retiring(%L)', base || '_p' || p, p);
        end loop;
        insert into sluice.retiring (part, counted_to) values (p, p * width);
        outcome := 'watched';
        return;
    end if;

    if held.open_job is not null or exists (select from sluice.retiring_touched t where t.part = p) then
        -- A transaction whose note is not seen yet will be found by the look before the drop.
        delete from sluice.retiring_touched t where t.part = p;
        delete from sluice.retiring r where r.part = p;
        insert into sluice.retiring (part, since, counted_to) values (p, held.since, p * width);
        outcome := 'again';
        return;
    end if;

    if held.counted_to < (p + 1) * width then
        execute format('select count(*) as jobs, min(id) as first, max(id) as last
                          from (select id from sluice.%I where id >= $1 order by id limit $2) s', 'job_p' || p)
           into slice using held.counted_to, at_once;
        upto := case when slice.jobs < at_once then (p + 1) * width else slice.last + 1 end;
        execute format('select j.id from sluice.%I j where j.id >= $1 and j.id < $2
                           and not exists (select from sluice.%I r where r.job_id = j.id)
                         order by j.id limit 1', 'job_p' || p, 'result_p' || p)
           into open_id using held.counted_to, upto;
        if open_id is not null then
            update sluice.retiring r set open_job = open_id where r.part = p;
            outcome := 'open';
            detail := open_id;
            return;
        end if;
        execute format('select count(*) filter (where state = ''succeeded'') as succeeded,
                               count(*) filter (where state = ''failed'') as failed,
                               count(*) filter (where state = ''cancelled'') as cancelled, max(finished_at) as youngest
                          from sluice.%I where job_id >= $1 and job_id < $2', 'result_p' || p)
           into ended using held.counted_to, upto;
        if ended.youngest > young then
            update sluice.retiring r set youngest = ended.youngest where r.part = p;
            outcome := 'young';
            return;
        end if;
        execute format('select count(*) as attempts, count(*) filter (where accepted) as accepted,
                               coalesce(sum(cost_nanos), 0)::bigint as cost
                          from sluice.%I where job_id >= $1 and job_id < $2', 'attempt_p' || p)
           into tried using held.counted_to, upto;
        update sluice.retiring r
           set counted_to = upto, first_id = coalesce(r.first_id, slice.first), last_id = coalesce(slice.last, r.last_id),
               jobs = r.jobs + slice.jobs, succeeded = r.succeeded + ended.succeeded, failed = r.failed + ended.failed,
               cancelled = r.cancelled + ended.cancelled, attempts = r.attempts + tried.attempts,
               accepted = r.accepted + tried.accepted, cost_nanos = r.cost_nanos + tried.cost,
               youngest = greatest(r.youngest, ended.youngest)
         where r.part = p;
        outcome := 'counted';
        detail := held.jobs + slice.jobs;
        return;
    end if;

    -- A vacuum that is at work would have to be waited for with everything else locked.
    foreach base in array array['job', 'attempt', 'result'] loop
        execute format('lock table sluice.%I in share update exclusive mode nowait', base || '_p' || p);
    end loop;
    deadline := clock_timestamp() + patience;
    foreach relation in array array['job', 'attempt', 'result', 'job_p' || p, 'attempt_p' || p, 'result_p' || p] loop
        perform set_config('lock_timeout',
            ceil(greatest(extract(epoch from deadline - clock_timestamp()) * 1000, 1))::bigint || 'ms', true);
        execute format('lock table only sluice.%I in access exclusive mode', relation);
    end loop;
    -- Nobody is left who could have changed something and not committed.
    if exists (select from sluice.retiring_touched t where t.part = p) then
        outcome := 'touched';
        return;
    end if;
    -- Something may have come to depend on it since; from here on nothing can.
    needed_by := sluice.dependents(p);
    if needed_by <> '{}' then
        update sluice.retiring r set dependents = needed_by where r.part = p;
        outcome := 'needed';
        return;
    end if;
    insert into sluice.retired (part, first_id, last_id, jobs, succeeded, failed, cancelled, attempts, accepted, cost_nanos,
                                youngest)
         select r.part, r.first_id, r.last_id, r.jobs, r.succeeded, r.failed, r.cancelled, r.attempts, r.accepted,
                r.cost_nanos, r.youngest
           from sluice.retiring r where r.part = p;
    execute format('drop table sluice.%I, sluice.%I, sluice.%I', 'job_p' || p, 'attempt_p' || p, 'result_p' || p);
    if pg_relation_size('sluice.idempotency') > 0 then
        update sluice.retiring r set keys_to = 0 where r.part = p;
        outcome := 'keys';
        return;
    end if;
    delete from sluice.retiring r where r.part = p;
    outcome := 'dropped';
    detail := held.jobs;
end
$$;


comment on function sluice.retire is
    'One step towards dropping the oldest partition whose jobs have all ended longer ago than this: nothing (there is none), elsewhere (another session is at it), watched, counted, again, keys, touched (call again), open, young or needed (it has to wait), dropped. Fails with lock_not_available when a lock is not had at once.';

-- ---------------------------------------------------------------------------------------- jobs that are in no queue
-- A job comes into the queue by a trigger, so one that came in while triggers were off (session_replication_role =
-- replica, a logical restore) is in none. One statement sees all places at one instant, and there a job is in exactly one.
create function sluice.unqueued(first bigint, past bigint) returns table (job_id bigint)
    language sql stable as $$
    select j.id
      from sluice.job j
     where j.id >= $1 and j.id < $2
       and not exists (select from sluice.result r where r.job_id = j.id)
       and not exists (select from sluice.parked p where p.job_id = j.id)
       and not exists (select from sluice.inflight i where i.job_id = j.id)
       and not exists (select from sluice.ready q
                        where q.flow = sluice.flow_of(j.route, j.project, j.batch) and q.prio = -(j.priority::integer)
                          and q.job_id = j.id)
$$;

comment on function sluice.unqueued is
    'Jobs from the first number up to, and without, the second that have not ended and are in no queue: they came in while triggers were off.';

-- Their batch counts them, unless it does already, as after a restore of all tables.
create function sluice.count_unqueued(jobs bigint[]) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into sluice.tally (hour, route, project, batch, enqueued)
         select date_trunc('hour', now()), m.route, m.project, m.batch, least(m.jobs, m.present - m.known)
           from (select g.*,
                        (select count(*) from sluice.job j
                          where j.batch = g.batch and j.route = g.route and j.project = g.project) as present,
                        (select coalesce(sum(t.enqueued), 0) from sluice.totals t
                          where t.batch = g.batch and t.route = g.route and t.project = g.project) as known
                   from (select j.route, j.project, j.batch, count(*) as jobs
                           from sluice.job j where j.id = any ($1) and j.batch is not null
                          group by j.route, j.project, j.batch) g) m
          where m.present > m.known
$$;

create function sluice.queue_unqueued(first bigint, past bigint, out queued bigint, out kept bigint[])
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
    perform pg_advisory_xact_lock(hashtextextended('sluice.unqueued', 0));
    found_jobs := array(select u.job_id from sluice.unqueued(queue_unqueued.first, queue_unqueued.past) u order by 1);
    if found_jobs = '{}' then
        queued := 0;
        kept := '{}';
        return;
    end if;
    -- What the trigger refuses stays where it is.
    good := array(select j.id from sluice.job j
                   where j.id = any (found_jobs) and j.priority between -1000 and 1000
                     and coalesce(j.max_attempts, 1) > 0 order by j.id);
    insert into sluice.idempotency (project, key, job_id)
         select j.project, j.idempotency_key, j.id
           from sluice.job j where j.id = any (good) and j.idempotency_key is not null order by 1, 2, 3
    on conflict do nothing;
    good := array(select j.id
                    from sluice.job j
                         left join sluice.idempotency i on i.project = j.project and i.key = j.idempotency_key
                   where j.id = any (good) and (j.idempotency_key is null or i.job_id = j.id) order by j.id);
    perform sluice.count_unqueued(good);
    -- What is on the ledger of a job goes on counting.
    with tried as (
        select j.id, sluice.flow_of(j.route, j.project, j.batch) as flow, -j.priority as prio, j.run_at,
               coalesce(a.number, 0::smallint) as attempts, coalesce(a.round, 0::smallint) as round
          from sluice.job j
               left join lateral (select max(a.number) as number, max(a.round) as round
                                    from sluice.attempt a where a.job_id = j.id) a on true
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

comment on function sluice.queue_unqueued is
    'Puts the jobs that sluice.unqueued finds into the queue; returns how many, and those that were kept as they are: their idempotency key is another job''s, or the trigger would have refused them.';

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
         where r.flow = sluice.flow_of(spec.route, spec.project, spec.batch) and r.prio = -(spec.priority::integer)
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
        if in_round is null and not exists (select from sluice.result r where r.job_id = cancel.job) then
            -- Perhaps it moves; perhaps it never came into the queue. One at a time, and not while it is put there.
            perform pg_advisory_xact_lock(hashtextextended('sluice.unqueued', 0));
            if exists (select from sluice.unqueued(cancel.job, cancel.job + 1)) then
                perform sluice.count_unqueued(array[cancel.job]);
                select coalesce(max(a.round), 0) into in_round from sluice.attempt a where a.job_id = cancel.job;
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

create or replace function sluice.pause(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    held record;
    tries integer := 0;
begin
    select j.route, j.project, j.batch, j.priority into spec from sluice.job j where j.id = pause.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', pause.job);
    end if;
    -- A job moves between the tables while we look: each look is a new snapshot, so a few are enough.
    while tries < 5 loop
        tries := tries + 1;
        delete from sluice.ready r
         where r.flow = sluice.flow_of(spec.route, spec.project, spec.batch) and r.prio = -(spec.priority::integer)
           and r.job_id = pause.job
        returning r.flow, r.prio, r.attempts, r.crashes, r.round into held;
        if found then
            insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
                 values (pause.job, '9999-12-31 00:00:00+00', held.flow, held.prio, held.attempts, held.crashes,
                         held.round, 'paused');
            return true;
        end if;
        update sluice.parked p set run_at = '9999-12-31 00:00:00+00', reason = 'paused'
         where p.job_id = pause.job and p.reason <> 'paused';
        if found then
            return true;
        end if;
        if exists (select from sluice.parked p where p.job_id = pause.job)
            or exists (select from sluice.result r where r.job_id = pause.job) then
            return false;
        end if;
        if exists (select from sluice.inflight i where i.job_id = pause.job) then
            raise object_in_use using
                message = format('job %s is in the hands of a worker and cannot be paused now', pause.job),
                hint = 'Cancel it to drop its call, or try again when it is back in the queue.';
        end if;
    end loop;
    if exists (select from sluice.unqueued(pause.job, pause.job + 1)) then
        raise object_not_in_prerequisite_state using
            message = format('job %s is in no queue, since it came in while triggers were off', pause.job),
            hint = 'sluice doctor --repair puts it into the queue.';
    end if;
    raise object_in_use using
        message = format('job %s changes hands all the time and cannot be paused now', pause.job), hint = 'Try again.';
end
$$;

create or replace view sluice.jobs with (security_barrier) as
select j.id,
       coalesce(r.state, case when i.job_id is not null then 'running' else 'queued' end) as state,
       j.route, j.project, j.batch, j.custom_id, j.priority, j.run_at, j.deadline, j.max_attempts,
       j.idempotency_key, j.metadata, j.created_at, r.finished_at,
       coalesce(r.attempts, i.attempts, p.attempts, q.attempts, 0::smallint) as attempts,
       case when r.job_id is null then p.run_at end as waits_until,
       case when r.job_id is null and i.job_id is null then
           case when p.job_id is null and q.job_id is null then 'no queue'
                when p.reason = 'paused' then p.reason
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
       left join sluice.ready q on q.flow = sluice.flow_of(j.route, j.project, j.batch) and q.prio = -(j.priority::integer)
             and q.job_id = j.id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.jobs.waits_for is
    'What a queued job waits for: no queue (it came in while triggers were off: sluice doctor --repair), paused, batch paused, route paused, project paused, scheduled, no worker, no worker knows the route, or a target and why it cannot be called. NULL: it runs or has ended, or nothing is known to be in its way.';

-- ------------------------------------------------------------------------------------------------------ grants
-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.dependents, sluice.unqueued, sluice.count_unqueued, sluice.queue_unqueued from public;
