-- Budgets: before each call its worst case is reserved in every budget that covers it, and given back when the call is
-- booked. A call without room in one of them is not made.
--
-- The row of a budget is locked only by the worker that asks for room. Transactions that book calls append to
-- sluice.budget_entry and wait for nothing; the next one that asks adds the entries up. So the money of a call counts
-- as reserved until the transaction that books it has committed, and as spent from the same instant.
--
-- Without a budget the tables are empty, and each statement that books or opens calls looks at one empty table.
-- Workers of earlier versions neither ask nor count. While one of them runs a budget does not hold, and what it has
-- spent is counted by `sluice doctor --repair`.
set local lock_timeout = '5s';

-- ------------------------------------------------------------------------------------------------- tables
create table sluice.budget (
    name         text primary key,
    scope        text not null check (scope in ('total', 'project', 'route', 'provider', 'batch', 'login')),
    scope_name   text not null default '' check ((scope = 'total') = (scope_name = '')),
    period       text not null check (period in ('hour', 'day', 'month', 'once')),
    limit_nanos  bigint not null check (limit_nanos > 0),
    soft         numeric check (soft > 0 and soft <= 1),
    then_route   text,
    unpriced     text not null default 'refuse' check (unpriced in ('refuse', 'allow')),
    -- What the configuration of a worker has said of it last; NULL: it was set by hand.
    configured   jsonb,
    set_by       text not null default session_user,
    set_at       timestamptz not null default now(),
    -- The window that its sums were last added up in.
    window_start timestamptz not null,
    -- The worst cases of the calls under way, without the entries that were not added up yet.
    reserved_nanos bigint not null default 0,
    -- The smallest worst case that was asked for lately: with less room than that it holds back its jobs.
    least_nanos  bigint,
    least_at     timestamptz,
    -- What was spent lately in a second, in billionths of a dollar, fading in ten minutes; as of when; and since when.
    burn         double precision not null default 0,
    burn_at      timestamptz not null default now(),
    burn_since   timestamptz,
    constraint budget_scope unique (scope, scope_name, period)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, fillfactor = 20);

-- What was spent in each window. That of a budget that counts once starts at the beginning of time.
create table sluice.budget_window (
    budget          text not null,
    starts_at       timestamptz not null,
    spent_nanos     bigint not null default 0,
    uncertain_nanos bigint not null default 0,
    unpriced_calls  bigint not null default 0,
    -- When the soft threshold was crossed, and when a call was refused for the first time.
    soft_at         timestamptz,
    full_at         timestamptz,
    primary key (budget, starts_at)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, fillfactor = 20);

-- What was booked and given back since the sums were added up.
create table sluice.budget_entry (
    -- A table without a primary key is refused by logical replication.
    id              bigint generated always as identity primary key,
    budget          text not null,
    starts_at       timestamptz,
    spent_nanos     bigint not null default 0,
    uncertain_nanos bigint not null default 0,
    unpriced_calls  bigint not null default 0,
    reserved_nanos  bigint not null default 0
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);

create table sluice.reservation (
    job_id      bigint not null,
    fence       bigint not null,
    number      smallint not null,
    budgets     text[] not null,
    nanos       bigint not null,
    reserved_at timestamptz not null default now(),
    primary key (job_id, fence, number)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, fillfactor = 50);

-- Counts up whenever a budget is added or removed: a worker that knows another number looks which calls they cover.
create table sluice.budget_version (
    only_row boolean primary key default true check (only_row),
    version  bigint not null
);
insert into sluice.budget_version (version) values (0);

comment on table sluice.budget is
    'What may be spent on what, in which window. Set by sluice.set_budget; read sluice.budgets.';
comment on table sluice.budget_window is 'What was spent of each budget in each of its windows.';
comment on table sluice.budget_entry is 'Changes of the sums of budgets that are not added up yet.';
comment on table sluice.reservation is
    'The worst cases of calls under way that budgets cover. A row goes when its call is booked, or was not made.';
comment on table sluice.budget_version is 'Counts up whenever a budget is added or removed.';

-- ------------------------------------------------------------------------------------------------- what covers what
create function sluice.window_of(period text, at timestamptz) returns timestamptz
    language sql immutable parallel safe
    return case when period = 'once' then '1970-01-01 00:00:00+00'::timestamptz
                else date_trunc(period, at at time zone 'UTC') at time zone 'UTC' end;

comment on function sluice.window_of is
    'The start of the window of a budget (hour, day or month, by UTC) in which an instant lies.';

create function sluice.window_end(period text, starts_at timestamptz) returns timestamptz
    language sql immutable parallel safe
    return case when period <> 'once'
                then (starts_at at time zone 'UTC' + ('1 ' || period)::interval) at time zone 'UTC' end;

comment on function sluice.window_end is 'The end of the window of a budget that starts at this instant; NULL: never.';

create function sluice.budget_covers(scope text, scope_name text, route text, project text, batch text, login text,
                                     provider text) returns boolean
    language sql immutable parallel safe
    return case scope when 'total' then true
                      when 'route' then scope_name = route
                      when 'project' then scope_name = project
                      when 'batch' then scope_name = batch
                      when 'login' then scope_name = login
                      when 'provider' then scope_name = provider end;

-- ------------------------------------------------------------------------------------------------- booking
-- Counts calls into the sums of the budgets that cover them, or out of them (sign -1).
create function sluice.count_spending(jobs bigint[], rounds smallint[], providers text[], ended timestamptz[],
                                      costs bigint[], uncertain bigint[], sign integer) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into sluice.budget_entry (budget, starts_at, spent_nanos, uncertain_nanos, unpriced_calls)
    select b.name, sluice.window_of(b.period, c.ended), sluice.capped(sum(coalesce(c.cost, 0)) * sign),
           sluice.capped(sum(c.uncertain) * sign), (count(*) - count(c.cost)) * sign
      from unnest(jobs, rounds, providers, ended, costs, uncertain) c(job_id, round, provider, ended, cost, uncertain)
           -- A call of a lost job (round -1) is none of the job that has its number.
           left join lateral (select k.route, k.project, k.batch, k.enqueued_by from sluice.job k
                               where k.id = any (array[c.job_id]) and c.round >= 0 limit 1) j on true
           join sluice.budget b on sluice.budget_covers(b.scope, b.scope_name, j.route, j.project, j.batch,
                                                        j.enqueued_by, c.provider)
     group by 1, 2
$$;

comment on function sluice.count_spending is
    'For workers: counts calls that were booked into the sums of budgets, or with -1 out of them.';

-- Gives back what was reserved for these calls; number NULL: for all calls of the claim.
create function sluice.release_reservations(jobs bigint[], fences bigint[], numbers smallint[]) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    with gone as (
        delete from sluice.reservation r using unnest(jobs, fences, numbers) c(job_id, fence, number)
         where r.job_id = any (array[c.job_id]) and r.fence = c.fence and (c.number is null or r.number = c.number)
        returning r.budgets, r.nanos
    )
    insert into sluice.budget_entry (budget, reserved_nanos)
    select u.name, -sum(g.nanos) from gone g cross join lateral unnest(g.budgets) u(name) group by u.name
$$;

comment on function sluice.release_reservations is
    'For workers: gives back what was reserved for calls that are booked, or were not made.';

create function sluice.settle_budgets(jobs bigint[], fences bigint[], numbers smallint[], rounds smallint[],
                                      providers text[], ended timestamptz[], costs bigint[], uncertain bigint[])
    returns void language sql set search_path = pg_catalog, pg_temp as $$
    select sluice.count_spending(jobs, rounds, providers, ended, costs, uncertain, 1);
    select sluice.release_reservations(jobs, fences, numbers);
$$;

comment on function sluice.settle_budgets is
    'For workers: turns what was reserved for calls into what they have cost, in the transaction that books them.';

-- As in 0019, and the calls that it books leave their reservations.
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
        if exists (select from sluice.budget) then
            perform sluice.settle_budgets(array[held.job_id], array[held.fence], array[open.number],
                                          array[held.round], array[open.provider], array[now()],
                                          array[case when open.worst is not null then 0::bigint end],
                                          array[coalesce(open.worst, 0)]);
        end if;
    end loop;
    return booked;
end
$$;

-- ------------------------------------------------------------------------------------------------- asking
-- Locks budgets (NULL: all of them), in the order of their names, turns their windows, adds up their entries, and notes
-- which have crossed their soft threshold by that.
create function sluice.hold_budgets(names text[], at timestamptz)
    returns table (name text, scope text, scope_name text, period text, limit_nanos bigint, soft numeric,
                   then_route text, unpriced text, ends_at timestamptz, spent_nanos bigint, uncertain_nanos bigint,
                   reserved_nanos bigint, least_nanos bigint, least_is_old boolean, crossed boolean, version bigint)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    over text[];
begin
    perform from sluice.budget b where hold_budgets.names is null or b.name = any (hold_budgets.names)
      order by b.name for update;
    with due as (
        delete from sluice.budget_entry e
         where hold_budgets.names is null or e.budget = any (hold_budgets.names) returning e.*
    ), sums as (
        select d.budget, d.starts_at, sluice.capped(sum(d.spent_nanos)) as spent,
               sluice.capped(sum(d.uncertain_nanos)) as uncertain, sum(d.unpriced_calls)::bigint as unpriced
          from due d where d.starts_at is not null and exists (select from sluice.budget b where b.name = d.budget)
         group by d.budget, d.starts_at
    ), kept as (
        insert into sluice.budget_window as w (budget, starts_at, spent_nanos, uncertain_nanos, unpriced_calls)
             select s.budget, s.starts_at, s.spent, s.uncertain, s.unpriced from sums s
        on conflict on constraint budget_window_pkey do update
            set spent_nanos = sluice.capped(w.spent_nanos::numeric + excluded.spent_nanos),
                uncertain_nanos = sluice.capped(w.uncertain_nanos::numeric + excluded.uncertain_nanos),
                unpriced_calls = w.unpriced_calls + excluded.unpriced_calls
    ), news as (
        select d.budget, sum(d.spent_nanos) as spent, sum(d.reserved_nanos) as reserved from due d group by d.budget
    )
    update sluice.budget b
       set reserved_nanos = greatest(b.reserved_nanos + n.reserved, 0),
           burn = b.burn * exp(-extract(epoch from greatest(hold_budgets.at - b.burn_at, '0')) / 600)
                  + greatest(n.spent, 0)::double precision / 600,
           burn_at = greatest(hold_budgets.at, b.burn_at),
           burn_since = case when n.spent > 0 then coalesce(b.burn_since, hold_budgets.at) else b.burn_since end
      from news n where b.name = n.budget;
    update sluice.budget b
       set window_start = sluice.window_of(b.period, hold_budgets.at), least_nanos = null, least_at = null
     where (hold_budgets.names is null or b.name = any (hold_budgets.names))
       and b.window_start < sluice.window_of(b.period, hold_budgets.at);
    with crossing as (
        update sluice.budget_window w set soft_at = hold_budgets.at
          from sluice.budget b
         where (hold_budgets.names is null or b.name = any (hold_budgets.names))
           and w.budget = b.name and w.starts_at = b.window_start and w.soft_at is null
           and w.spent_nanos::numeric + w.uncertain_nanos >= b.soft * b.limit_nanos
        returning w.budget
    )
    select coalesce(array_agg(c.budget), '{}') into over from crossing c;
    return query
    select b.name, b.scope, b.scope_name, b.period, b.limit_nanos, b.soft, b.then_route, b.unpriced,
           sluice.window_end(b.period, b.window_start), coalesce(w.spent_nanos, 0), coalesce(w.uncertain_nanos, 0),
           b.reserved_nanos, b.least_nanos, coalesce(b.least_at < hold_budgets.at - interval '15 seconds', true),
           b.name = any (over), (select v.version from sluice.budget_version v)
      from sluice.budget b
           left join sluice.budget_window w on w.budget = b.name and w.starts_at = b.window_start
     where hold_budgets.names is null or b.name = any (hold_budgets.names)
     order by b.name;
end
$$;

comment on function sluice.hold_budgets is
    'For workers: locks budgets until the end of the transaction, and adds up what was booked of them.';

-- ------------------------------------------------------------------------------------------------- reading
create view sluice.budget_standing as
select b.name, b.scope, b.scope_name, b.period, b.limit_nanos, b.soft, b.then_route, b.unpriced, b.set_by, b.set_at,
       b.configured is not null as is_configured, t.starts_at, sluice.window_end(b.period, t.starts_at) as ends_at,
       coalesce(w.spent_nanos, 0) + e.spent as spent_nanos,
       coalesce(w.uncertain_nanos, 0) + e.uncertain as uncertain_nanos,
       coalesce(w.unpriced_calls, 0) + e.unpriced as unpriced_calls,
       greatest(b.reserved_nanos + e.reserved, 0) as reserved_nanos,
       case when b.window_start = t.starts_at then b.least_nanos end as least_nanos,
       coalesce(b.least_at < now() - interval '15 seconds', true) as least_is_old,
       w.soft_at, w.full_at,
       -- What was spent while the average was not yet settled counts for as long as it took, and a minute at least.
       case when b.burn_since is not null then
           b.burn * exp(-extract(epoch from greatest(now() - b.burn_at, '0')) / 600) * 3600
               / (1 - exp(-greatest(extract(epoch from now() - b.burn_since), 60) / 600))
       else 0 end as burn_nanos_per_hour
  from sluice.budget b
       cross join lateral (select sluice.window_of(b.period, now()) as starts_at) t
       left join sluice.budget_window w on w.budget = b.name and w.starts_at = t.starts_at
       cross join lateral (
            select coalesce(sum(x.spent_nanos) filter (where x.starts_at = t.starts_at), 0)::bigint as spent,
                   coalesce(sum(x.uncertain_nanos) filter (where x.starts_at = t.starts_at), 0)::bigint as uncertain,
                   coalesce(sum(x.unpriced_calls) filter (where x.starts_at = t.starts_at), 0)::bigint as unpriced,
                   coalesce(sum(x.reserved_nanos), 0)::bigint as reserved
              from sluice.budget_entry x where x.budget = b.name) e;

comment on view sluice.budget_standing is
    'Budgets and their sums in the window of now, in billionths of a dollar: what sluice.budgets and workers read.';

create view sluice.budgets as
select s.name, s.scope, nullif(s.scope_name, '') as scope_name, s.period, s.starts_at, s.ends_at,
       round(s.limit_nanos / 1e9, 9) as "limit", round(s.spent_nanos / 1e9, 9) as spent,
       round(s.reserved_nanos / 1e9, 9) as reserved, round(s.uncertain_nanos / 1e9, 9) as uncertain,
       round((s.limit_nanos - s.spent_nanos - s.reserved_nanos - s.uncertain_nanos) / 1e9, 9) as room,
       s.soft, s.soft_at, s.then_route, s.unpriced, s.unpriced_calls,
       s.limit_nanos - s.spent_nanos - s.reserved_nanos - s.uncertain_nanos < coalesce(s.least_nanos, 1) as holds,
       round(s.burn_nanos_per_hour::numeric / 1e9, 9) as burn_per_hour,
       s.set_by, s.set_at, s.is_configured
  from sluice.budget_standing s;

comment on view sluice.budgets is
    'What may be spent on what, in dollars: limits, and what was spent in the window of now.';
comment on column sluice.budgets.reserved is 'The worst cases of calls under way.';
comment on column sluice.budgets.uncertain is
    'What may have been spent on top: the worst cases of calls whose end is not known. It counts against the limit.';
comment on column sluice.budgets.holds is
    'Whether there is less room than the smallest call needs that was asked for lately: its jobs wait.';
comment on column sluice.budgets.burn_per_hour is 'Dollars per hour, by what was spent in about the last ten minutes.';

-- ------------------------------------------------------------------------------------------------- what is booked
-- What the books say of a scope between two instants. The sums of reports do not know logins, so for those the ledger
-- is read.
create function sluice.booked_of(scope text, scope_name text, since timestamptz, until timestamptz,
                                 out spent bigint, out uncertain bigint, out unpriced bigint)
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if booked_of.scope = 'login' then
        select sluice.capped(coalesce(sum(a.cost_nanos), 0)), sluice.capped(coalesce(sum(a.uncertain_nanos), 0)),
               count(*) - count(a.cost_nanos) into spent, uncertain, unpriced
          from sluice.attempt a join sluice.job j on j.id = a.job_id
         where j.enqueued_by = booked_of.scope_name and a.round >= 0 and a.ended_at >= booked_of.since
           and (booked_of.until is null or a.ended_at < booked_of.until);
    elsif booked_of.scope = 'batch' then
        select sluice.capped(coalesce(sum(t.cost_nanos), 0)), sluice.capped(coalesce(sum(t.uncertain_nanos), 0)),
               coalesce(sum(t.unpriced), 0) into spent, uncertain, unpriced
          from sluice.totals t
         where t.batch <> '' and t.batch = booked_of.scope_name and t.hour >= booked_of.since
           and (booked_of.until is null or t.hour < booked_of.until);
    else
        -- Sums are kept by the hour of the session's zone: those of an hour that two windows share count where they
        -- begin.
        select sluice.capped(coalesce(sum(t.cost_nanos), 0)), sluice.capped(coalesce(sum(t.uncertain_nanos), 0)),
               coalesce(sum(t.unpriced), 0) into spent, uncertain, unpriced
          from sluice.totals t
         where t.hour >= booked_of.since and (booked_of.until is null or t.hour < booked_of.until)
           and sluice.budget_covers(booked_of.scope, booked_of.scope_name, t.route, t.project, nullif(t.batch, ''),
                                    null, nullif(t.provider, ''));
    end if;
end
$$;

comment on function sluice.booked_of is
    'For the doctor: what was booked for a scope between two instants, in billionths of a dollar.';

-- Compares each budget with the books, and with the calls under way; corrects it if asked to. No call is booked
-- meanwhile.
create function sluice.check_budgets(repair boolean default false)
    returns table (name text, starts_at timestamptz, spent_nanos bigint, booked_nanos bigint, uncertain_nanos bigint,
                   booked_uncertain bigint, reserved_nanos bigint, under_way_nanos bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    if not exists (select from sluice.budget) then
        return;
    elsif check_budgets.repair
          and not has_function_privilege(session_user, 'sluice.raise_budget(text, numeric)', 'execute') then
        raise insufficient_privilege using
            message = format('%s may look at budgets, and not correct them', session_user);
    end if;
    -- In this order: a worker that asks for room locks the budgets first, too. What was booked until the table is
    -- locked is added up by the second look.
    perform sluice.hold_budgets(null, clock_timestamp());
    lock table only sluice.attempt in share mode;
    perform sluice.hold_budgets(null, clock_timestamp());
    return query
    with held as (
        select b.name, b.scope, b.scope_name, b.window_start, sluice.window_end(b.period, b.window_start) as ends,
               b.reserved_nanos, coalesce(w.spent_nanos, 0) as spent, coalesce(w.uncertain_nanos, 0) as uncertain,
               coalesce(w.unpriced_calls, 0) as unpriced,
               (select coalesce(sum(r.nanos), 0)::bigint from sluice.reservation r where b.name = any (r.budgets))
                   as under_way
          from sluice.budget b
               left join sluice.budget_window w on w.budget = b.name and w.starts_at = b.window_start
    ), compared as materialized (
        select h.*, k.spent as is_spent, k.uncertain as is_uncertain, k.unpriced as is_unpriced
          from held h cross join lateral sluice.booked_of(h.scope, h.scope_name, h.window_start, h.ends) k
         where (h.spent, h.uncertain, h.unpriced, h.reserved_nanos)
               is distinct from (k.spent, k.uncertain, k.unpriced, h.under_way)
    ), windows as (
        insert into sluice.budget_window as w (budget, starts_at, spent_nanos, uncertain_nanos, unpriced_calls)
             select c.name, c.window_start, c.is_spent, c.is_uncertain, c.is_unpriced from compared c
              where check_budgets.repair
        on conflict on constraint budget_window_pkey do update
            set spent_nanos = excluded.spent_nanos, uncertain_nanos = excluded.uncertain_nanos,
                unpriced_calls = excluded.unpriced_calls
    ), rows as (
        update sluice.budget b set reserved_nanos = c.under_way from compared c
         where check_budgets.repair and b.name = c.name
    )
    select c.name, c.window_start, c.spent, c.is_spent, c.uncertain, c.is_uncertain, c.reserved_nanos, c.under_way
      from compared c order by c.name;
end
$$;

comment on function sluice.check_budgets is
    'Budgets whose sums are not those of the books, or whose reservations are not those of the calls under way; with '
    'repair, corrects them.';

-- ------------------------------------------------------------------------------------------------- setting
-- Jobs that rest because the budget had no room look again.
create function sluice.wake_budget(name text) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    update sluice.parked p set run_at = now()
     where p.job_id in (select w.job_id from sluice.parked w
                         where w.reason not in ('scheduled', 'paused') and w.reason = 'budget ' || wake_budget.name
                           and w.run_at > now() for update skip locked)
$$;

create function sluice.check_budget_amount(name text, amount numeric) returns bigint
    language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if amount is null then
        raise invalid_parameter_value using message = format('budget %s: expected an amount in dollars', name);
    elsif amount <= 0 then
        raise invalid_parameter_value using
            message = format('budget %s: the amount is %s; expected dollars above 0', name, amount),
            hint = 'To let nothing run, pause it: select sluice.pause(''project'', ''NAME'').';
    elsif amount <> round(amount, 9) then
        raise invalid_parameter_value using
            message = format('budget %s: the amount is %s; expected at most nine decimals', name, amount);
    elsif amount > 9000000000 then
        raise invalid_parameter_value using
            message = format('budget %s: the amount is %s; expected at most 9000000000 dollars', name, amount);
    end if;
    return (amount * 1000000000)::bigint;
end
$$;

create function sluice.set_budget(
        name text, amount numeric, per text default 'once', project text default null, route text default null,
        provider text default null, batch text default null, login text default null, soft numeric default null,
        then_route text default null, unpriced text default 'refuse', configured jsonb default null)
    returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s' as $$
declare
    nanos bigint;
    the_scope text;
    the_name text;
    was sluice.budget;
    other text;
    is_new boolean;
    starts timestamptz := sluice.window_of(case when per in ('hour', 'day', 'month') then per else 'once' end, now());
begin
    if coalesce(set_budget.name, '') = '' then
        raise invalid_parameter_value using message = 'expected the name of a budget';
    elsif octet_length(set_budget.name) > 600 then
        raise invalid_parameter_value using
            message = format('the name of the budget is %s bytes long; expected at most 600',
                             octet_length(set_budget.name));
    end if;
    nanos := sluice.check_budget_amount(set_budget.name, set_budget.amount);
    if per is null or per not in ('hour', 'day', 'month', 'once') then
        raise invalid_parameter_value using
            message = format('budget %s: per is %s, a window that never turns; expected hour, day, month or once',
                             set_budget.name, coalesce(quote_literal(per), 'null'));
    elsif num_nonnulls(project, route, provider, batch, login) > 1 then
        raise invalid_parameter_value using
            message = format('budget %s: expected at most one of project, route, provider, batch and login',
                             set_budget.name),
            hint = 'A call has to have room in each budget that covers it: set two budgets.';
    elsif soft is not null and not (soft > 0 and soft <= 1) then
        raise invalid_parameter_value using
            message = format('budget %s: soft is %s; expected a share above 0 and up to 1, such as 0.8',
                             set_budget.name, soft);
    elsif then_route is not null and soft is null then
        raise invalid_parameter_value using
            message = format('budget %s: then_route is used from the soft threshold on; expected soft as well',
                             set_budget.name);
    elsif then_route is not null and num_nonnulls(provider, login) > 0 then
        raise invalid_parameter_value using
            message = format('budget %s: then_route is for the jobs of a project, a route or a batch, or for all',
                             set_budget.name);
    elsif unpriced is null or unpriced not in ('refuse', 'allow') then
        raise invalid_parameter_value using
            message = format('budget %s: unpriced is %s; expected refuse or allow', set_budget.name,
                             coalesce(quote_literal(unpriced), 'null'));
    elsif '' in (project, route, provider, batch, login) then
        raise invalid_parameter_value using
            message = format('budget %s: expected a name and not an empty text', set_budget.name);
    end if;
    -- One at a time.
    perform from sluice.budget_version for update;
    the_name := coalesce(project, route, provider, batch, login, '');
    the_scope := case when project is not null then 'project' when route is not null then 'route'
                      when provider is not null then 'provider' when batch is not null then 'batch'
                      when login is not null then 'login' else 'total' end;
    select b.name into other from sluice.budget b
     where b.scope = the_scope and b.scope_name = the_name and b.period = per and b.name <> set_budget.name;
    if found then
        raise unique_violation using
            message = format('budget %s: %s covers the same in the same window', set_budget.name, other),
            hint = format('Raise or remove that one: select sluice.raise_budget(%L, 100), '
                          'sluice.drop_budget(%L).', other, other);
    end if;
    select b.* into was from sluice.budget b where b.name = set_budget.name for update;
    if found and (was.scope, was.scope_name, was.period) = (the_scope, the_name, per) then
        update sluice.budget b
           set limit_nanos = nanos, soft = set_budget.soft, then_route = set_budget.then_route,
               unpriced = set_budget.unpriced, configured = coalesce(set_budget.configured, b.configured),
               set_by = session_user, set_at = now()
         where b.name = set_budget.name
           and (b.limit_nanos, b.soft, b.then_route, b.unpriced, b.configured) is distinct from
               (nanos, set_budget.soft, set_budget.then_route, set_budget.unpriced,
                coalesce(set_budget.configured, b.configured));
        if not found then
            return false;
        end if;
        update sluice.budget_window w set soft_at = null, full_at = null
         where w.budget = was.name and w.starts_at = was.window_start
           and (nanos, set_budget.soft) is distinct from (was.limit_nanos, was.soft);
        perform sluice.wake_budget(set_budget.name);
        return true;
    elsif found then
        perform sluice.drop_budget(set_budget.name);
    end if;
    -- Before its first job, or while that is not committed, a batch has cost nothing. Otherwise no call may be opened
    -- or booked while it is counted: a call counts either as booked, or as under way, or asks the new budget.
    select coalesce((select j.xmin = pg_current_xact_id()::xid from sluice.job j where j.batch = the_name
                      order by j.id limit 1), true) into is_new;
    if the_scope = 'batch' and is_new then
        insert into sluice.budget (name, scope, scope_name, period, limit_nanos, soft, then_route, unpriced,
                                   configured, window_start)
             values (set_budget.name, the_scope, the_name, per, nanos, set_budget.soft, set_budget.then_route,
                     set_budget.unpriced, set_budget.configured, starts);
    else
        lock table sluice.inflight in share mode;
        lock table only sluice.attempt in share mode;
        insert into sluice.budget (name, scope, scope_name, period, limit_nanos, soft, then_route, unpriced,
                                   configured, window_start)
             values (set_budget.name, the_scope, the_name, per, nanos, set_budget.soft, set_budget.then_route,
                     set_budget.unpriced, set_budget.configured, starts);
        insert into sluice.budget_window (budget, starts_at, spent_nanos, uncertain_nanos, unpriced_calls)
             select set_budget.name, starts, k.spent, k.uncertain, k.unpriced
               from sluice.booked_of(the_scope, the_name, starts, sluice.window_end(per, starts)) k;
        insert into sluice.reservation as r (job_id, fence, number, budgets, nanos)
             select o.job_id, o.fence, o.number, array[set_budget.name], coalesce(o.worst, 0)
               from (select i.job_id, i.fence, i.call_number as number, i.call_provider as provider,
                            i.call_worst as worst
                       from sluice.inflight i where i.call_number is not null
                      union all
                     select c.job_id, c.fence, c.number, c.provider, c.worst from sluice.race_call c) o
                    cross join lateral (select k.* from sluice.job k where k.id = any (array[o.job_id])) j
              where sluice.budget_covers(the_scope, the_name, j.route, j.project, j.batch, j.enqueued_by, o.provider)
                and not exists (select from sluice.attempt a
                                 where a.job_id = any (array[o.job_id]) and a.fence = o.fence
                                   and a.number = o.number)
        on conflict on constraint reservation_pkey do update set budgets = r.budgets || excluded.budgets;
        update sluice.budget b
           set reserved_nanos = coalesce((select sum(r.nanos) from sluice.reservation r
                                           where set_budget.name = any (r.budgets)), 0)
         where b.name = set_budget.name;
    end if;
    update sluice.budget_version v set version = v.version + 1;
    return true;
end
$$;

comment on function sluice.set_budget is
    'Sets what may be spent, in dollars, on a project, a route, a provider, a batch or a login, or in all, in each '
    'hour, '
    'day or month (UTC), or once. A budget that is there is changed. What was booked in this window counts. True: '
    'something was changed.';

create function sluice.raise_budget(name text, amount numeric) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    nanos bigint := sluice.check_budget_amount(raise_budget.name, raise_budget.amount);
    was bigint;
begin
    select b.limit_nanos into was from sluice.budget b where b.name = raise_budget.name for update;
    if not found then
        raise no_data_found using message = format('there is no budget %s', raise_budget.name);
    end if;
    update sluice.budget b set limit_nanos = nanos, set_by = session_user, set_at = now()
     where b.name = raise_budget.name;
    if was <> nanos then
        update sluice.budget_window w set soft_at = null, full_at = null
         where (w.budget, w.starts_at) = (select b.name, b.window_start from sluice.budget b
                                           where b.name = raise_budget.name);
    end if;
    perform sluice.wake_budget(raise_budget.name);
    return was <> nanos;
end
$$;

comment on function sluice.raise_budget is
    'Gives a budget another amount, in dollars, and leaves the rest of it as it is. Work that waits for it goes on.';

create function sluice.drop_budget(name text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from sluice.budget_version for update;
    delete from sluice.budget b where b.name = drop_budget.name;
    if not found then
        return false;
    end if;
    delete from sluice.budget_window w where w.budget = drop_budget.name;
    delete from sluice.budget_entry e where e.budget = drop_budget.name;
    update sluice.reservation r set budgets = array_remove(r.budgets, drop_budget.name)
     where drop_budget.name = any (r.budgets);
    update sluice.budget_version v set version = v.version + 1;
    perform sluice.wake_budget(drop_budget.name);
    return true;
end
$$;

comment on function sluice.drop_budget is
    'Removes a budget: what it covered is spent without it. False: there is none.';

-- ------------------------------------------------------------------------------------------------- why work waits
-- What holds back whole lanes: by scope, the name of a budget without room. A provider's budget closes its rungs, and
-- workers say that.
create view sluice.budget_holds as
select coalesce(jsonb_object_agg(k.scope, k.names), '{}') as held
  from (select s.scope, jsonb_object_agg(s.scope_name, s.name) as names
          from sluice.budget_standing s
         where s.scope <> 'provider'
           and s.limit_nanos - s.spent_nanos - s.reserved_nanos - s.uncertain_nanos < coalesce(s.least_nanos, 1)
         group by s.scope) k;

comment on view sluice.budget_holds is 'One row: the budgets without room that hold back jobs, by what they cover.';

create or replace view sluice.hindrances as
select c.said as claimers,
       (select coalesce(jsonb_object_agg(k.kind, k.names), '{}')
          from (select p.kind, jsonb_object_agg(p.name, true) as names
                  from sluice.pause p where p.kind <> 'provider' group by p.kind) k)
       || (select jsonb_strip_nulls(jsonb_build_object('budget', nullif(h.held, '{}'))) from sluice.budget_holds h)
           as paused
  from sluice.claimers c;

comment on view sluice.hindrances is
    'One row: what the workers that take jobs say, which batches, routes and projects are paused, and which budgets '
    'have no room. Read sluice.jobs.waits_for.';

-- As in 0021, and what waits for a budget says which.
create or replace function sluice.waits_for(claimers jsonb, paused jsonb, route text, project text, batch text,
                                            rests text, is_due boolean) returns text
    language sql immutable parallel safe
    begin atomic
        select case
                   when rests = 'paused' then rests
                   when paused -> 'batch' ? waits_for.batch then 'batch paused'
                   when paused -> 'route' ? waits_for.route then 'route paused'
                   when paused -> 'project' ? waits_for.project then 'project paused'
                   when rests = 'scheduled' and not is_due then rests
                   when paused ? 'budget'
                        and coalesce(paused #>> array['budget', 'batch', waits_for.batch],
                                     paused #>> array['budget', 'route', waits_for.route],
                                     paused #>> array['budget', 'project', waits_for.project],
                                     paused #>> '{budget,total,""}') is not null
                       then 'budget ' || coalesce(paused #>> array['budget', 'batch', waits_for.batch],
                                                  paused #>> array['budget', 'route', waits_for.route],
                                                  paused #>> array['budget', 'project', waits_for.project],
                                                  paused #>> '{budget,total,""}')
                   else (
                       with claimer as (
                           select c.it -> 'routes' as routes, c.it -> 'waits' -> waits_for.route as waits
                             from jsonb_array_elements(claimers) c(it)
                            where coalesce(c.it ->> 'only', waits_for.batch, '') = coalesce(waits_for.batch, '')
                       )
                       select case
                                  when count(*) = 0 then 'no worker'
                                  when bool_and(jsonb_typeof(routes) = 'array' and not routes ? waits_for.route)
                                      then 'no worker knows the route'
                                  when rests is not null and not is_due then rests
                                  -- One that knows the route and names nothing takes them, as far as is known.
                                  when bool_or(waits is null and (jsonb_typeof(routes) is distinct from 'array'
                                                                  or routes ? waits_for.route)) then null
                                  else min(waits ->> 'for')
                              end
                         from claimer)
               end;
    end;

revoke execute on function sluice.count_spending, sluice.release_reservations, sluice.settle_budgets,
    sluice.hold_budgets, sluice.booked_of, sluice.check_budgets, sluice.wake_budget, sluice.check_budget_amount,
    sluice.set_budget, sluice.raise_budget, sluice.drop_budget from public;

-- Whether a budget holds back the jobs of a login: the name of the budget.
create function sluice.login_budget(paused jsonb, login text) returns text
    language sql immutable parallel safe
    return 'budget ' || (paused #>> array['budget', 'login', login]);

comment on function sluice.login_budget is
    'What the jobs of a login wait for, from what sluice.hindrances says: a budget without room, or NULL.';

-- As in 0021, and the budget of its login may hold a job back.
create or replace view sluice.jobs with (security_barrier) as
select j.id,
       coalesce(r.state, case when i.job_id is not null then 'running' else 'queued' end) as state,
       j.route, j.project, j.batch, j.custom_id, j.priority, j.run_at, j.deadline, j.max_attempts,
       j.idempotency_key, j.metadata, j.created_at, r.finished_at,
       coalesce(r.attempts, i.attempts, p.attempts, q.attempts, 0::smallint) as attempts,
       case when r.job_id is null then p.run_at end as waits_until,
       case when r.job_id is null and i.job_id is null then
           case when p.job_id is null and q.job_id is null then 'no queue'
                else coalesce(sluice.waits_for((select h.claimers from sluice.hindrances h),
                                               (select h.paused from sluice.hindrances h), j.route, j.project,
                                               j.batch, p.reason, p.run_at <= now()),
                              sluice.login_budget((select h.paused from sluice.hindrances h), j.enqueued_by))
           end
       end as waits_for,
       j.request
  from sluice.job j
       left join sluice.result r on r.job_id = j.id
       left join sluice.inflight i on i.job_id = j.id
       left join sluice.parked p on p.job_id = j.id
       left join sluice.ready q on q.flow = any (sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by))
             and q.prio = -(j.priority::integer)
             and q.job_id = j.id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

grant execute on function sluice.window_of, sluice.window_end, sluice.budget_covers, sluice.login_budget to public;
