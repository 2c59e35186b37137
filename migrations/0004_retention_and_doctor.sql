-- Finished work is dropped by partition when it is old enough; what was dropped is noted. And the schema says which binaries
-- may work on it.
--
-- A partition goes in small steps, one short transaction each, none of which makes anybody wait for more than some hundred
-- milliseconds: it is watched (from then on every change of a row in it is noted), counted slice by slice, and dropped when
-- nothing was noted meanwhile. So the long look needs no lock, and what is found under the short lock is exact.
--
-- Safe with workers of earlier versions running: they know nothing of these tables, and nothing is dropped unless a worker
-- that has [retention] asks for it.

-- ------------------------------------------------------------------------------------------ who may work here
create table sluice.schema_support (
    oldest bigint not null
);
create unique index schema_support_one on sluice.schema_support ((true));
insert into sluice.schema_support (oldest) values (4);

comment on table sluice.schema_support is
    'One row: the schema version that a binary must know at least to work on this database. A migration that older workers cannot live with raises it.';

-- -------------------------------------------------------------------------------------------------- retention
create table sluice.retired (
    part       bigint primary key,
    first_id   bigint,
    last_id    bigint,
    jobs       bigint not null,
    succeeded  bigint not null,
    failed     bigint not null,
    cancelled  bigint not null,
    attempts   bigint not null,
    accepted   bigint not null,
    cost_nanos bigint not null,
    youngest   timestamptz,
    dropped_at timestamptz not null default clock_timestamp()
);

comment on table sluice.retired is 'What retention has dropped: one row per partition of job, result and attempt.';
comment on column sluice.retired.part is 'The partition: ids from part * 10,000,000 on.';
comment on column sluice.retired.first_id is 'The lowest job number in it; NULL when it was empty.';
comment on column sluice.retired.accepted is 'Attempts whose answer was used.';
comment on column sluice.retired.cost_nanos is 'What its attempts cost, in billionths of a dollar, as far as prices are known.';
comment on column sluice.retired.youngest is 'When the last of its jobs ended.';

-- A partition on its way out, and how far it has been counted.
create table sluice.retiring (
    part       bigint primary key,
    since      timestamptz not null default now(),
    counted_to bigint not null,
    first_id   bigint,
    last_id    bigint,
    jobs       bigint not null default 0,
    succeeded  bigint not null default 0,
    failed     bigint not null default 0,
    cancelled  bigint not null default 0,
    attempts   bigint not null default 0,
    accepted   bigint not null default 0,
    cost_nanos bigint not null default 0,
    youngest   timestamptz,
    open_job   bigint,
    keys_to    bigint not null default 0
);

comment on table sluice.retiring is 'Partitions that retention has looked into and that are not dropped yet.';
comment on column sluice.retiring.counted_to is 'Jobs below this number are counted.';
comment on column sluice.retiring.youngest is 'When the last of the counted jobs ended: the partition stays until that is old enough.';
comment on column sluice.retiring.open_job is 'A job that has not ended: the partition stays until it has.';
comment on column sluice.retiring.keys_to is 'Idempotency keys of its jobs are cleared in the pages below this one.';

-- One row per transaction that changed something in a partition that is counted. Appended, never updated: transactions
-- that change such rows must not wait for each other.
create table sluice.retiring_touched (
    part bigint not null,
    xact xid8 not null,
    primary key (part, xact)
);

create function sluice.touch_retiring() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into sluice.retiring_touched (part, xact) values (tg_argv[0]::bigint, pg_current_xact_id())
    on conflict do nothing;
    return null;
end
$$;

-- As before, but a new partition is attached instead of being made in place: that takes a lock on the parent which
-- neither enqueueing nor settling notices, whatever transaction is open.
create or replace function sluice.ensure_partitions(ahead integer default 3) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    width constant bigint := 10000000;
    first_part bigint;
    part bigint;
    made integer := 0;
    base text;
begin
    -- One at a time: two workers that start together would make the same table.
    perform pg_advisory_xact_lock(hashtextextended('sluice.ensure_partitions', 0));
    select last_value / width into first_part from sluice.job_id_seq;
    for part in first_part .. first_part + ahead loop
        foreach base in array array['job', 'result', 'attempt'] loop
            if to_regclass(format('sluice.%I', base || '_p' || part)) is null then
                -- Insert-only: freeze early and in small steps, and keep statistics fresh.
                execute format('create table sluice.%I (like sluice.%I including defaults including constraints
                    including compression including storage) with (autovacuum_vacuum_insert_scale_factor = 0.05,
                    autovacuum_analyze_scale_factor = 0.05)', base || '_p' || part, base);
                execute format('alter table sluice.%I attach partition sluice.%I for values from (%L) to (%L)',
                    base, base || '_p' || part, part * width, (part + 1) * width);
                made := made + 1;
            end if;
        end loop;
    end loop;
    return made;
end
$$;

-- Few jobs never fill ten million numbers, so a partition is also left when it has become old.
create function sluice.begin_partition(older_than interval) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
    width constant bigint := 10000000;
    part bigint;
    ahead bigint;
    base text;
begin
    if older_than < interval '1 hour' or older_than is null then
        raise invalid_parameter_value using message = 'older_than: expected an hour at least';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('sluice.begin_partition', 0)) then
        return null;
    end if;
    select last_value / width into part from sluice.job_id_seq;
    if not exists (select from (select j.created_at from sluice.job j
                                 where j.id >= part * width and j.id < (part + 1) * width order by j.id limit 1) f
                    where f.created_at <= now() - older_than) then
        return null;
    end if;
    -- They must have been there for a while: a COPY that is running does not see one that came after it began.
    for ahead in part + 1 .. part + 2 loop
        foreach base in array array['job', 'result', 'attempt'] loop
            if to_regclass(format('sluice.%I', base || '_p' || ahead)) is null then
                return null;
            end if;
        end loop;
    end loop;
    -- Not setval, which overwrites what another session has taken meanwhile. This waits until every transaction is over
    -- that took a number, and keeps others from taking one: what is read afterwards is true, and nobody who still might
    -- commit into the old partition is left. It changes nothing yet.
    alter sequence sluice.job_id_seq cache 1;
    if (select last_value / width from sluice.job_id_seq) <> part then
        return null;
    end if;
    execute format('alter sequence sluice.job_id_seq restart with %s', (part + 1) * width);
    return part + 1;
end
$$;

comment on function sluice.begin_partition is
    'Goes on to the next partition when the first job of the present one is older than this; returns its number, or NULL when there is no need. Fails with lock_not_available when transactions that enqueue do not end within 200 ms.';

create function sluice.retire(keep interval, out outcome text, out partition bigint, out detail bigint)
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

    -- The first partition that may perhaps go. What is known to keep one is looked at first, and costs next to nothing.
    for p in
        select substring(c.relname from '^job_p(\d+)$')::bigint
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'sluice.job'::regclass and c.relname ~ '^job_p\d+$'
           and substring(c.relname from '^job_p(\d+)$')::bigint < (select last_value / width from sluice.job_id_seq)
         order by 1
    loop
        select * into held from sluice.retiring r where r.part = p;
        if found then
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

    last_page := pg_relation_size('sluice.idempotency') / current_setting('block_size')::bigint;
    if held.keys_to < last_page then
        -- Whoever has met a key, and is about to read whose it is, holds a lock that this waits for.
        lock table sluice.idempotency in share row exclusive mode;
        delete from sluice.idempotency k
         where k.ctid >= format('(%s,0)', held.keys_to)::tid and k.ctid < format('(%s,0)', held.keys_to + pages)::tid
           and k.job_id >= p * width and k.job_id < (p + 1) * width;
        update sluice.retiring r set keys_to = held.keys_to + pages where r.part = p;
        outcome := 'keys';
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
    insert into sluice.retired (part, first_id, last_id, jobs, succeeded, failed, cancelled, attempts, accepted, cost_nanos,
                                youngest)
         select r.part, r.first_id, r.last_id, r.jobs, r.succeeded, r.failed, r.cancelled, r.attempts, r.accepted,
                r.cost_nanos, r.youngest
           from sluice.retiring r where r.part = p;
    delete from sluice.retiring r where r.part = p;
    execute format('drop table sluice.%I, sluice.%I, sluice.%I', 'job_p' || p, 'attempt_p' || p, 'result_p' || p);
    outcome := 'dropped';
    detail := held.jobs;
end
$$;

comment on function sluice.retire is
    'One step towards dropping the oldest partition whose jobs have all ended longer ago than this: nothing (there is none), elsewhere (another session is at it), watched, counted, again, keys, touched (call again), open or young (it has to wait), dropped. Fails with lock_not_available when a lock is not had at once.';

-- ------------------------------------------------------------------------------------------------------ grants
revoke execute on function sluice.touch_retiring, sluice.begin_partition, sluice.retire from public;
do $$
declare
    role_name text;
begin
    foreach role_name in array array['sluice_enqueuer', 'sluice_reporter', 'sluice_worker'] loop
        if exists (select from pg_roles where rolname = role_name) then
            execute format('grant select on sluice.schema_support to %I', role_name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'sluice_worker') then
        grant select on sluice.retired, sluice.retiring to sluice_worker;
        grant execute on function sluice.begin_partition, sluice.retire to sluice_worker;
    end if;
    if exists (select from pg_roles where rolname = 'sluice_reporter') then
        grant select on sluice.retired, sluice.retiring to sluice_reporter;
        -- How many numbers are left, and which queues are long, is for whoever looks after it to see.
        grant select on sequence sluice.job_id_seq to sluice_reporter;
    end if;
end
$$;
