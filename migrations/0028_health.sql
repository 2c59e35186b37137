-- Workers tell each other what they find out about targets and keys: breakers that open and close, models that are
-- refused, rests that a provider asks for, keys that are out of service. What is here is kept over restarts.
--
-- A row is a hint: a worker with calls of its own goes by these. Workers of earlier versions neither read nor write
-- the table, and find everything out by themselves, as before.
set local lock_timeout = '5s';

create table sluice.health (
    subject    text not null,
    server     text not null,
    state      jsonb not null,
    worker     bigint not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (subject, server)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

comment on table sluice.health is
    'What workers have found out about targets and keys, for all workers. server: a mark of the address, since another '
    'worker may have another address under the same name.';

do $$ begin
    if to_regrole('sluice_worker') is not null then
        grant select, insert, update, delete on sluice.health to sluice_worker;
    end if;
end $$;

-- Newest news last: the members of what is told go over those of what was told before.
create function sluice.tell_health(worker bigint, subjects text[], servers text[], states jsonb[]) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into sluice.health as h (subject, server, state, worker)
    select subject, server, state, tell_health.worker
      from unnest(subjects, servers, states) told (subject, server, state)
     order by subject, server
        on conflict (subject, server) do update
       set state = h.state || excluded.state, worker = excluded.worker, written_at = clock_timestamp();
$$;

comment on function sluice.tell_health is 'Tells the other workers what this one has found out about targets and keys.';

revoke execute on function sluice.tell_health from public;

do $$ begin
    if to_regrole('sluice_worker') is not null then
        grant execute on function sluice.tell_health to sluice_worker;
    end if;
end $$;
