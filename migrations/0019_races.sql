-- A race asks several rungs for one job at once. The row of a claim in sluice.inflight names one call that is under
-- way; the calls beside that one are here. So each of them is booked, whichever process takes the job away.
--
-- Jobs of other routes have no row here, and cost nothing more. Workers of earlier versions write none; the function by
-- which they take jobs away books these calls too.
set local lock_timeout = '5s';

create table sluice.race_call (
    job_id   bigint not null,
    fence    bigint not null,
    number   smallint not null,
    provider text not null,
    model    text not null,
    rung     smallint not null,
    started  timestamptz not null,
    worst    bigint,
    primary key (job_id, fence, number)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, fillfactor = 50);

comment on table sluice.race_call is
    'Calls that are under way beside the one that is named in sluice.inflight: a race asks several rungs at once.';
comment on column sluice.race_call.worst is
    'What the call may cost at most, in billionths of a dollar; NULL when the price is unknown.';

create or replace function sluice.book_open_call(held sluice.inflight, why text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    open record;
    spec record;
    took integer;
    booked boolean := false;
begin
    for open in
        -- The call that the claim names comes first: a row beside it with its number is of a call that was not made.
        with beside as (
            delete from sluice.race_call r where r.job_id = held.job_id and r.fence = held.fence returning r.*
        )
        select held.call_number as number, held.call_provider as provider, held.call_model as model,
               held.call_rung as rung, held.call_started as started, held.call_worst as worst, false as is_beside
         where held.call_number is not null
         union all
        select b.number, b.provider, b.model, b.rung, b.started, b.worst, true from beside b
         order by is_beside, number
    loop
        took := least(greatest(extract(epoch from now() - open.started) * 1000, 0), 2147483647)::integer;
        insert into sluice.attempt (job_id, fence, number, round, provider, model, rung, started_at, ended_at,
                                    total_ms, accepted, class, detail, message, usage_source, cost_nanos,
                                    uncertain_nanos, placeholder)
             values (held.job_id, held.fence, open.number, held.round, open.provider, open.model, open.rung,
                     open.started, now(), took, false, 'abandoned', why,
                     case why when 'worker_died' then 'the worker died or was cut off during the call'
                              when 'cancelled' then 'the job was cancelled during the call'
                              when 'fault' then 'a fault in Sluice itself during the call'
                              when 'lost_answer' then 'what came of the call was written, and the database has lost '
                                                      'it, by a failover or a restored backup'
                              else 'another answer came for the job during the call' end,
                     'unknown', case when open.worst is not null then 0 end, coalesce(open.worst, 0), true)
        -- Its worker has told already how it ended, and had gone on to something else.
        on conflict do nothing;
        continue when not found;
        booked := true;
        select j.route, j.project, coalesce(j.batch, '') as batch into spec from sluice.job j
         where j.id = held.job_id;
        insert into sluice.tally (hour, route, project, batch, provider, model, class, detail, attempts,
                                  uncertain_nanos, unpriced, total_ms)
             values (date_trunc('hour', now()), spec.route, spec.project, spec.batch, open.provider, open.model,
                     'abandoned', why, 1, coalesce(open.worst, 0), case when open.worst is null then 1 else 0 end,
                     took);
    end loop;
    return booked;
end
$$;

comment on function sluice.book_open_call is
    'Books the calls that are under way under a claim in its worker''s place: true. None is under way, or how they '
    'ended is booked already: false.';
