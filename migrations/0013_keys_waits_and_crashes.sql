-- What else keeps an old partition from going is named: a foreign key onto the table of idempotency keys. And a worker
-- that is to stop when nothing is left finds what waits for a retry without reading what is scheduled for later.
--
-- Workers of the version before go on beside it: to them a step of retention that is kept by a foreign key is nothing
-- to do.

-- ------------------------------------------------------------------------------------ sums that do not overflow
-- A count that no call can have, of a provider that lies or miscounts, made sums fail from then on: reports, the list
-- of batches, the fold itself. Such counts are not booked any more; what older workers have written, or still write, is
-- cut to what can be, and no sum fails.
create function sluice.capped(amount numeric) returns bigint
    language sql immutable as $$
    select least(greatest($1, -9223372036854775808), 9223372036854775807)::bigint
$$;

comment on function sluice.capped is 'A sum as the nearest number that a bigint can hold.';

-- No call has more than ten thousand million tokens, or costs more than a million dollars.
create function sluice.absurd(attempts bigint, tokens bigint, nanos bigint) returns boolean
    language sql immutable as $$
    select $2 / 10000000000 > greatest($1, 1) or $3 / 1000000000000000 > greatest($1, 1)
$$;

comment on function sluice.absurd is
    'Whether so many calls cannot have so many tokens, or cannot cost so many billionths of a dollar.';

do $$
declare
    sums text;
begin
    foreach sums in array array['tally', 'tally_hour'] loop
        execute format('update sluice.%I t set
            input_tokens = least(t.input_tokens, greatest(t.attempts, 1)::numeric * 10000000000),
            cached_tokens = least(t.cached_tokens, greatest(t.attempts, 1)::numeric * 10000000000),
            output_tokens = least(t.output_tokens, greatest(t.attempts, 1)::numeric * 10000000000),
            cost_nanos = least(t.cost_nanos, greatest(t.attempts, 1)::numeric * 1000000000000000),
            waste_nanos = least(t.waste_nanos, greatest(t.attempts, 1)::numeric * 1000000000000000),
            uncertain_nanos = least(t.uncertain_nanos, greatest(t.attempts, 1)::numeric * 1000000000000000)
          where sluice.absurd(t.attempts, greatest(t.input_tokens, t.cached_tokens, t.output_tokens),
                              greatest(t.cost_nanos, t.waste_nanos, t.uncertain_nanos))', sums);
    end loop;
end
$$;

-- What a job has cost is summed up when it ends: of the open ones on their ledger.
with open as (
    select job_id from sluice.ready where attempts > 0 union all select job_id from sluice.parked where attempts > 0
    union all select job_id from sluice.inflight
)
update sluice.attempt a
   set cost_nanos = least(a.cost_nanos, 1000000000000000), uncertain_nanos = least(a.uncertain_nanos, 1000000000000000)
  from open o
 where a.job_id = o.job_id and greatest(a.cost_nanos, a.uncertain_nanos) > 1000000000000000;

create or replace view sluice.cost_by_provider as
select provider, model, sum(attempts)::bigint as attempts, sum(succeeded)::bigint as jobs_answered,
       sluice.capped(sum(input_tokens)) as input_tokens, sluice.capped(sum(cached_tokens)) as cached_tokens,
       sluice.capped(sum(output_tokens)) as output_tokens, round(sum(cost_nanos) / 1e9, 9) as cost,
       round(sum(waste_nanos) / 1e9, 9) as waste, round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost,
       sum(unpriced)::bigint as unpriced_attempts
  from sluice.totals where provider <> '' group by provider, model;

-- ------------------------------------------------------------------------------------ what depends on the keys
-- Keys go after their jobs, a thousand pages at a time. A foreign key that refuses this would stop all of retention,
-- with the jobs of a partition gone and their keys still there; so it keeps the partitions as one onto their tables
-- does. One that cascades, or sets its columns to null, refuses nothing.
create function sluice.dependents_on_keys() returns text[]
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(c.name order by c.name), '{}')
      from (select pg_describe_object('pg_constraint'::regclass, k.oid, 0) as name
              from pg_constraint k
             where k.contype = 'f' and k.confrelid = 'sluice.idempotency'::regclass and k.conparentid = 0
               and k.confdeltype in ('a', 'r')) c
$$;

comment on function sluice.dependents_on_keys is
    'Foreign keys of others that keep idempotency keys from being deleted, in words.';

create or replace function sluice.dependents(part bigint) returns text[]
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
    select coalesce(array_agg(distinct name order by name), '{}')
      from (select name from named union all select unnest(sluice.dependents_on_keys())) n
$$;


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
    if not sluice.take_turn('retire', false) then
        outcome := 'elsewhere';
        return;
    end if;

    -- Keys go after their jobs: a key whose job is still there must never be used again. Until they are gone, they
    -- stand for a job that was there a moment before.
    select r.* into held
      from sluice.retiring r join sluice.retired d on d.part = r.part
     where to_regclass(format('sluice.%I', 'job_p' || r.part)) is null
     order by r.part limit 1;
    if found then
        partition := held.part;
        last_page := pg_relation_size('sluice.idempotency') / current_setting('block_size')::bigint;
        if held.keys_to < last_page then
            -- A session that has met a key, and is about to read whose it is, holds a lock that this waits for.
            lock table sluice.idempotency in share row exclusive mode;
            -- A foreign key that came meanwhile would refuse it; under this lock none can come.
            needed_by := sluice.dependents_on_keys();
            if needed_by <> '{}' then
                outcome := case when held.dependents = needed_by then 'nothing' else 'needed' end;
                update sluice.retiring r set dependents = needed_by
                 where r.part = held.part and r.dependents is distinct from needed_by;
                return;
            end if;
            delete from sluice.idempotency k
             where k.ctid >= format('(%s,0)', held.keys_to)::tid and k.ctid < format('(%s,0)', held.keys_to + pages)::tid
               and k.job_id >= held.part * width and k.job_id < (held.part + 1) * width;
            update sluice.retiring r set keys_to = held.keys_to + pages, dependents = null
             where r.part = held.part;
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
        -- Waits for every session that has changed a row and not yet committed. From the commit on every change is
        -- noted.
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
                               sluice.capped(coalesce(sum(cost_nanos), 0)) as cost
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
    -- No session is left that could have changed something and not committed.
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

-- ------------------------------------------------------------------------------------ what waits for a retry
-- Of the parked jobs these are few, and what a worker that drains has to know of: without an index of their own it
-- reads all that are scheduled for later and all that are paused to find that none is among them.
create index parked_waiting on sluice.parked (job_id) where reason not in ('scheduled', 'paused');

-- ------------------------------------------------------------------------------------ what workers have died with
-- Jobs that were in the hands of a worker that died are taken again a few at a time (src/domain/suspicion.rs), so
-- workers ask all the time which there are. As a rule there is none.
create index ready_suspects on sluice.ready (flow, prio, crashes, job_id) where crashes > 0;

-- ------------------------------------------------------------------------------------------------------ grants
-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.dependents_on_keys from public;
grant execute on function sluice.capped, sluice.absurd to public;

-- ------------------------------------------------------------------------------------------- the notes of migrations
-- They are the owner's to write: a worker that could delete them could have the next migration fail.
do $$
begin
    if exists (select from pg_roles where rolname = 'sluice_worker') and to_regclass('sluice.migration') is not null then
        revoke insert, update, delete, truncate, references, trigger on sluice.migration from sluice_worker;
    end if;
end
$$;
