-- The limits of providers, as all workers share them.
--
-- A bucket's state is one value that workers pass on by compare-and-swap: read, work out a slice, write if nobody wrote
-- meanwhile. What it means is the program's business (domain/shared_bucket); here it is read for people only.
--
-- Safe with workers of 0.1.0 running: they know nothing of these tables, and hold their limits each for itself.

create table sluice.bucket (
    id   bigint generated always as identity primary key,
    name text not null unique
);

comment on table sluice.bucket is 'Buckets of limits by name. A row is made when a worker first needs it and stays.';

-- The version is part of the key, newest first: however many dead versions a snapshot that somebody holds open keeps
-- alive, the newest is found at once.
create table sluice.bucket_state (
    bucket     bigint not null references sluice.bucket on delete cascade,
    version    bigint not null,
    state      jsonb not null,
    written_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 0);

create unique index bucket_state_newest on sluice.bucket_state (bucket, version desc);

comment on table sluice.bucket_state is
    'One row per bucket: who holds how much of which limit. Written a few times a second by each worker that uses it.';

create view sluice.buckets as
select b.name as bucket,
       m.value -> 'dimension' ->> 'unit' as unit,
       (m.value -> 'dimension' ->> 'seconds')::bigint as per_seconds,
       least((m.value -> 'configured' ->> 'amount')::bigint, (m.value -> 'learned' ->> 'amount')::bigint)
           as amount,
       case when (m.value -> 'configured' ->> 'amount')::bigint <= coalesce((m.value -> 'learned' ->> 'amount')::bigint,
                                                                          (m.value -> 'configured' ->> 'amount')::bigint)
            then 'configured' when m.value is not null then 'learned' end as source,
       (m.value ->> 'level')::bigint as level,
       leased.units as leased,
       leased.by_worker as leased_to,
       (s.state ->> 'concurrency')::bigint as concurrency,
       places.taken as places,
       case when gate.until > clock_timestamp() then s.state -> 'gate' ->> 'reason' end as shut,
       case when gate.until > clock_timestamp() then gate.until end as shut_until,
       s.written_at
  from sluice.bucket b
  join sluice.bucket_state s on s.bucket = b.id
  left join lateral jsonb_array_elements(s.state -> 'meters') m on true
  cross join lateral (
      select to_timestamp((s.state -> 'gate' ->> 'until')::numeric / 1000) as until) gate
  cross join lateral (
      select coalesce(sum((h.value ->> 'held')::bigint), 0)::bigint as units,
             coalesce(jsonb_object_agg(share.key, h.value -> 'held') filter (where (h.value ->> 'held')::bigint > 0),
                      '{}') as by_worker
        from jsonb_each(s.state -> 'shares') share,
             jsonb_each(share.value -> 'holdings') h
       where to_timestamp((share.value ->> 'until')::numeric / 1000) > clock_timestamp()
         and h.key = (m.value -> 'dimension' ->> 'unit')
                     || case (m.value -> 'dimension' ->> 'seconds') when '1' then '/s' when '60' then '/min'
                             when '86400' then '/day' else '/' || (m.value -> 'dimension' ->> 'seconds') || 's' end) leased
  cross join lateral (
      select coalesce(sum((share.value ->> 'slots')::bigint), 0)::bigint as taken
        from jsonb_each(s.state -> 'shares') share
       where to_timestamp((share.value ->> 'until')::numeric / 1000) > clock_timestamp()) places;

comment on view sluice.buckets is
    'Each limit of each bucket: amount per time, where it comes from, what is left and what is lent to workers, and until when the bucket is shut and why. The level is as of written_at.';
comment on column sluice.buckets.source is 'configured, or learned from the headers of answers where nothing is configured or they say less';
comment on column sluice.buckets.level is 'units that nobody holds, at written_at; negative while in debt';
comment on column sluice.buckets.leased is 'units that workers hold and may have spent';
comment on column sluice.buckets.leased_to is 'the same by the number of the worker';
comment on column sluice.buckets.places is 'calls that workers may run at once, of concurrency';

do $$
begin
    if exists (select from pg_roles where rolname = 'sluice_worker') then
        grant select, insert, update, delete on sluice.bucket, sluice.bucket_state to sluice_worker;
        grant usage, select on all sequences in schema sluice to sluice_worker;
        grant select on sluice.buckets to sluice_worker;
    end if;
    if exists (select from pg_roles where rolname = 'sluice_reporter') then
        grant select on sluice.bucket, sluice.bucket_state, sluice.buckets to sluice_reporter;
    end if;
end
$$;
