-- Every report comes from sums: also latencies, calls that named a fault, the codes of failures, where fallbacks led
-- and what they cost more; and each by the login that enqueued the job. A second set of sums leaves batches out, so
-- that reports stay fast however many batches there are.
--
-- Workers of earlier versions append their sums as before: without a login, a code or latencies. They fold no more,
-- since they would drop what they do not know: the turn that they take is gone.
set local lock_timeout = '5s';

-- ------------------------------------------------------------------------------------------------- the ledger
alter table sluice.attempt
    add column instead_of    text,
    add column instead_why   text,
    add column instead_nanos bigint;

comment on column sluice.attempt.instead_of is
    'The target that its job would have taken first, where the call went to another one; NULL: it went there.';
comment on column sluice.attempt.instead_why is
    'Why not there: the error class of that target''s failure, or the word for what shut it.';
comment on column sluice.attempt.instead_nanos is
    'What the tokens of this call would have cost there, in billionths of a dollar, by its price at that time; NULL: '
    'not known.';

-- ------------------------------------------------------------------------------------------------- histograms
-- A histogram is a list of numbers, one for each class of durations that occurs: the class times 2^40, plus how many
-- there are. Two of them are added by adding the numbers of equal classes. Each class reaches to 1.1 times the one
-- before: what is read from it is at most 4.9 % beside the truth.
create function sluice.latency_class(ms bigint) returns integer
    language sql immutable parallel safe
    return case when ms <= 1 then 0 else ceil(ln(ms::double precision) / ln(1.1::double precision))::integer end;

comment on function sluice.latency_class is 'The class of a histogram of latencies in which so many milliseconds lie.';

create function sluice.latency_of(class integer) returns bigint
    language sql immutable parallel safe
    return case when class <= 0 then 1 else round(power(1.1::double precision, class - 0.5))::bigint end;

comment on function sluice.latency_of is 'The milliseconds that stand for a class of a histogram of latencies.';

create function sluice.histogram_sum(parts bigint[]) returns bigint[]
    language sql immutable parallel safe
    return (select coalesce(array_agg((s.class << 40) + s.n order by s.class), '{}')
              from (select p.part >> 40 as class, sum(p.part & 1099511627775)::bigint as n
                      from unnest(parts) p(part) group by 1) s);

comment on function sluice.histogram_sum is 'Adds histograms whose lists were joined into one.';

create function sluice.histogram_at(histogram bigint[], share double precision) returns bigint
    language sql immutable parallel safe
    return (select sluice.latency_of(min(s.class)::integer)
              from (select h.part >> 40 as class,
                           sum(h.part & 1099511627775) over (order by h.part >> 40) as up_to,
                           sum(h.part & 1099511627775) over () as n
                      from unnest(histogram) h(part)) s
             where s.up_to >= ceil(s.n * share::numeric));

comment on function sluice.histogram_at is
    'The milliseconds that a share of the answers in a histogram took at most, to 4.9 %; NULL: it is empty. '
    'histogram_at(latency, 0.95) is the 95th percentile.';

-- ------------------------------------------------------------------------------------------------- the sums
do $$
declare
    sums text;
begin
    foreach sums in array array['tally', 'tally_hour'] loop
        execute format('alter table sluice.%I
            add column login            text not null default '''',
            add column code             text not null default '''',
            add column instead_of       text not null default '''',
            add column instead_why      text not null default '''',
            add column repaired         bigint not null default 0,
            add column reasks           bigint not null default 0,
            add column reask_cost_nanos bigint not null default 0,
            add column reask_unpriced   bigint not null default 0,
            add column extra_nanos      bigint not null default 0,
            add column extra_unknown    bigint not null default 0,
            add column latency          bigint[] not null default ''{}'',
            add column first_byte       bigint[] not null default ''{}''', sums);
    end loop;
end
$$;

-- What a provider said of one of the failures that a row counts. The folding keeps one for each code.
alter table sluice.tally add column sample text not null default '';

alter table sluice.tally_hour
    drop constraint tally_hour_pkey,
    add primary key (hour, route, project, batch, login, provider, model, class, detail, code, instead_of,
                     instead_why);

create table sluice.tally_hour_all (
    like sluice.tally_hour including defaults,
    primary key (hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why)
);
alter table sluice.tally_hour_all drop column batch;

comment on table sluice.tally_hour_all is
    'Sums by hour, all batches together, written with those of tally_hour. Read sluice.totals_all.';

insert into sluice.tally_hour_all (hour, route, project, provider, model, class, detail, enqueued, succeeded, failed,
                                   cancelled, attempts, fallbacks, input_tokens, cached_tokens, output_tokens,
                                   cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms)
     select hour, route, project, provider, model, class, detail, sum(enqueued), sum(succeeded), sum(failed),
            sum(cancelled), sum(attempts), sum(fallbacks), sluice.capped(sum(input_tokens)),
            sluice.capped(sum(cached_tokens)), sluice.capped(sum(output_tokens)), sluice.capped(sum(cost_nanos)),
            sluice.capped(sum(waste_nanos)), sluice.capped(sum(uncertain_nanos)), sum(unpriced),
            sluice.capped(sum(total_ms))
       from sluice.tally_hour group by 1, 2, 3, 4, 5, 6, 7;

-- By whole days of UTC: what long reports read. They read the hours at the edges of their time beside it.
create table sluice.tally_day_all (
    like sluice.tally_hour_all including defaults,
    primary key (hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why)
);

comment on table sluice.tally_day_all is
    'Sums by day (hour is its beginning, UTC), all batches together, written with those of tally_hour_all.';

insert into sluice.tally_day_all (hour, route, project, provider, model, class, detail, enqueued, succeeded, failed,
                                  cancelled, attempts, fallbacks, input_tokens, cached_tokens, output_tokens,
                                  cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms)
     select date_trunc('day', hour, 'UTC'), route, project, provider, model, class, detail, sum(enqueued),
            sum(succeeded), sum(failed), sum(cancelled), sum(attempts), sum(fallbacks),
            sluice.capped(sum(input_tokens)), sluice.capped(sum(cached_tokens)), sluice.capped(sum(output_tokens)),
            sluice.capped(sum(cost_nanos)), sluice.capped(sum(waste_nanos)), sluice.capped(sum(uncertain_nanos)),
            sum(unpriced), sluice.capped(sum(total_ms))
       from sluice.tally_hour group by 1, 2, 3, 4, 5, 6, 7;

create table sluice.failure_sample (
    provider text not null,
    model    text not null,
    class    text not null,
    detail   text not null,
    code     text not null,
    message  text not null,
    seen_at  timestamptz not null default now(),
    primary key (provider, model, class, detail, code)
);

comment on table sluice.failure_sample is
    'What providers say when calls fail: the latest message for each code, of at most 20 codes for each class of a '
    'target. Failures with further codes count under the code (other).';

-- The turn at folding has another name, so that workers of earlier versions find none.
delete from sluice.turn where name = 'fold_tally';
insert into sluice.turn (name) values ('fold_sums');

-- The code under which a failure is counted: the provider's, or else the HTTP status.
create function sluice.failure_code(class text, code text, http_status integer) returns text
    language sql immutable parallel safe
    return case when class is null then ''
                when coalesce(code, '') <> ''
                then left(regexp_replace(code, '[\u0001-\u001f\u007f-\u009f]', ' ', 'g'), 60)
                when http_status >= 400 then http_status::text
                else '' end;

comment on function sluice.failure_code is
    'The code under which a failed call is counted: the provider''s own, or else the HTTP status.';

-- ------------------------------------------------------------------------------------------------- the logins
-- What is enqueued, cancelled, tried anew and booked in a worker's place counts for the login of the job. The functions
-- stay as they are but for that, whichever migration wrote them last.
do $$
declare
    taker record;
    edit record;
    definition text;
begin
    for taker in
        select p.proname as name, pg_get_functiondef(p.oid) as definition
          from pg_proc p
         where p.pronamespace = 'sluice'::regnamespace and p.prosrc ~ 'sluice\.tally'
    loop
        definition := taker.definition;
        for edit in
            select * from (values
                ('book_open_call', 'coalesce(j.batch, '''') as batch into spec',
                                   'coalesce(j.batch, '''') as batch, j.enqueued_by into spec'),
                ('book_open_call', 'insert into sluice.tally (hour, route, project, batch, provider,',
                                   'insert into sluice.tally (hour, route, project, batch, login, provider,'),
                ('book_open_call', 'spec.project, spec.batch, open.provider,',
                                   'spec.project, spec.batch, coalesce(spec.enqueued_by, ''''), open.provider,'),
                ('cancel',         'insert into sluice.tally (hour, route, project, batch, cancelled)',
                                   'insert into sluice.tally (hour, route, project, batch, login, cancelled)'),
                ('cancel',         'coalesce(spec.batch, ''''), 1);',
                                   'coalesce(spec.batch, ''''), spec.enqueued_by, 1);'),
                ('retry',          'insert into sluice.tally (hour, route, project, batch, provider,',
                                   'insert into sluice.tally (hour, route, project, batch, login, provider,'),
                ('retry',          'spec.project, coalesce(spec.batch, ''''),' || chr(10),
                                   'spec.project, coalesce(spec.batch, ''''), spec.enqueued_by,' || chr(10)),
                ('job_enqueued',   'insert into sluice.tally (hour, route, project, batch, enqueued)',
                                   'insert into sluice.tally (hour, route, project, batch, login, enqueued)'),
                ('job_enqueued',   'route, project, batch, count(*) from fresh',
                                   'route, project, batch, enqueued_by, count(*) from fresh'),
                ('job_enqueued',   'where batch is not null group by route, project, batch;',
                                   'where batch is not null group by route, project, batch, enqueued_by;'),
                -- The jobs that are missing are counted by batch; most batches are of one login.
                ('count_unqueued', 'insert into sluice.tally (hour, route, project, batch, enqueued)',
                                   'insert into sluice.tally (hour, route, project, batch, login, enqueued)'),
                ('count_unqueued', 'm.route, m.project, m.batch, least(',
                                   'm.route, m.project, m.batch, m.login, least('),
                ('count_unqueued', 'j.batch, count(*) as jobs',
                                   'j.batch, count(*) as jobs, case when min(j.enqueued_by) = max(j.enqueued_by) '
                                   || 'then min(j.enqueued_by) else '''' end as login')
            ) e(name, was, is_now)
             where e.name = taker.name
        loop
            if length(definition) - length(replace(definition, edit.was, '')) <> length(edit.was) then
                raise exception 'the function sluice.% is not as this migration knows it: "%" is not there once',
                    edit.name, edit.was;
            end if;
            definition := replace(definition, edit.was, edit.is_now);
        end loop;
        if definition = taker.definition then
            raise exception 'the function sluice.% adds to the sums in a way that this migration does not know',
                taker.name;
        end if;
        execute definition;
    end loop;
end
$$;

-- ------------------------------------------------------------------------------------------------- views
create or replace view sluice.totals as
select hour, route, project, batch, provider, model, class, detail, enqueued, succeeded, failed, cancelled, attempts,
       fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced,
       total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced, extra_nanos,
       extra_unknown, latency, first_byte
  from sluice.tally
 union all
select hour, route, project, batch, provider, model, class, detail, enqueued, succeeded, failed, cancelled, attempts,
       fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced,
       total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced, extra_nanos,
       extra_unknown, latency, first_byte
  from sluice.tally_hour;

create view sluice.totals_all as
select hour, route, project, provider, model, class, detail, enqueued, succeeded, failed, cancelled, attempts,
       fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced,
       total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced, extra_nanos,
       extra_unknown, latency, first_byte
  from sluice.tally
 union all
select hour, route, project, provider, model, class, detail, enqueued, succeeded, failed, cancelled, attempts,
       fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced,
       total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced, extra_nanos,
       extra_unknown, latency, first_byte
  from sluice.tally_hour_all;

comment on view sluice.totals_all is
    'The sums of sluice.totals, all batches together: fast however many batches there are.';

create view sluice.totals_days as
select date_trunc('day', hour, 'UTC') as hour, route, project, provider, model, class, detail, enqueued, succeeded,
       failed, cancelled, attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos,
       uncertain_nanos, unpriced,
       total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced, extra_nanos,
       extra_unknown, latency, first_byte
  from sluice.tally
 union all
select hour, route, project, provider, model, class, detail, enqueued, succeeded, failed, cancelled, attempts,
       fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced,
       total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced, extra_nanos,
       extra_unknown, latency, first_byte
  from sluice.tally_day_all;

comment on view sluice.totals_days is
    'The sums of sluice.totals_all by day (hour is its beginning, UTC): fast however long the history is.';

create or replace view sluice.cost_by_provider as
select provider, model, sum(attempts)::bigint as attempts, sum(succeeded)::bigint as jobs_answered,
       sluice.capped(sum(input_tokens)) as input_tokens, sluice.capped(sum(cached_tokens)) as cached_tokens,
       sluice.capped(sum(output_tokens)) as output_tokens, round(sum(cost_nanos) / 1e9, 9) as cost,
       round(sum(waste_nanos) / 1e9, 9) as waste, round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost,
       sum(unpriced)::bigint as unpriced_attempts,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals_days where provider <> '' group by provider, model;

create or replace view sluice.cost_daily as
select date_trunc('day', hour) as day, project, provider, model, sum(attempts)::bigint as attempts,
       round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost, sum(unpriced)::bigint as unpriced_attempts,
       sum(succeeded)::bigint as jobs_answered,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals_all where provider <> '' group by 1, 2, 3, 4;

create or replace view sluice.cost_by_route as
select route, sum(enqueued)::bigint as jobs, sum(succeeded)::bigint as succeeded, sum(failed)::bigint as failed,
       sum(cancelled)::bigint as cancelled, sum(attempts)::bigint as attempts,
       round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost, sum(unpriced)::bigint as unpriced_attempts,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals_days group by route;

create view sluice.cost_by_login as
select login, sum(enqueued)::bigint as jobs, sum(succeeded)::bigint as succeeded, sum(failed)::bigint as failed,
       sum(cancelled)::bigint as cancelled, sum(attempts)::bigint as attempts,
       round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost, sum(unpriced)::bigint as unpriced_attempts,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals_days group by login;

comment on view sluice.cost_by_login is
    'What the jobs of each login have cost, in dollars. An empty login: counted by a worker of an earlier version.';

create or replace view sluice.failures as
select class, detail, provider, model, route, sum(attempts)::bigint as attempts, sum(failed)::bigint as jobs_failed,
       round(sum(cost_nanos) / 1e9, 9) as cost, max(hour) as last_hour
  from sluice.totals_all where class <> '' group by class, detail, provider, model, route
having sum(attempts) > 0 or sum(failed) > 0;

create view sluice.failure_codes as
with counted as (
    select provider, model, class, detail, code, sum(attempts)::bigint as attempts, max(hour) as last_day
      from sluice.totals_days where class <> '' and provider <> ''
     group by provider, model, class, detail, code having sum(attempts) > 0
), said as (
    select distinct on (provider, model, class, detail, code) provider, model, class, detail, code, message
      from (select s.provider, s.model, s.class, s.detail, s.code, s.message, s.seen_at, 0::bigint as id
              from sluice.failure_sample s
             union all
            select t.provider, t.model, t.class, t.detail, t.code, t.sample, t.hour + interval '1 hour', t.id
              from sluice.tally t where t.sample <> '') s
     order by provider, model, class, detail, code, seen_at desc, id desc
)
select c.provider, c.model, c.class, nullif(c.detail, '') as detail, nullif(c.code, '') as code, c.attempts,
       c.last_day, nullif(s.message, '') as message
  from counted c left join said s using (provider, model, class, detail, code);

comment on view sluice.failure_codes is
    'Calls that failed, by target, error class and code (the provider''s, or else the HTTP status), with the latest '
    'message that came with it.';

create or replace view sluice.waste as
select provider, model, class, detail, sum(attempts)::bigint as attempts, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost
  from sluice.totals_days where provider <> '' group by provider, model, class, detail
having sum(waste_nanos) > 0 or sum(uncertain_nanos) > 0;

create or replace view sluice.fallbacks as
select route, provider, model, sum(succeeded)::bigint as jobs_answered, sum(fallbacks)::bigint as after_fallback
  from sluice.totals_days where provider <> '' group by route, provider, model having sum(succeeded) > 0;

create view sluice.fallback_paths as
select route, instead_of as first_choice, instead_why as why, provider || '/' || model as answered_by,
       sum(attempts)::bigint as answers, round(sum(cost_nanos) / 1e9, 9) as cost,
       round(sum(extra_nanos) / 1e9, 9) as cost_more, sum(extra_unknown)::bigint as unknown
  from sluice.totals_days where instead_of <> '' and class = '' group by 1, 2, 3, 4 having sum(attempts) > 0;

comment on view sluice.fallback_paths is
    'Accepted answers that did not come from the first choice of their jobs: which that was, why it did not answer, '
    'which target did, and what the answers cost more than the same tokens would have cost at the first choice '
    '(negative: less). unknown: answers of which that is not known, and which are not in cost_more.';

create view sluice.quality as
select provider, model,
       sum(attempts) filter (where class in ('', 'soft_failure'))::bigint as answers,
       coalesce(sum(attempts) filter (where class = ''), 0)::bigint as accepted,
       round(coalesce(sum(attempts) filter (where class = ''), 0)
             / nullif(sum(attempts) filter (where class in ('', 'soft_failure')), 0), 4) as acceptance,
       sum(repaired)::bigint as repaired,
       coalesce((select jsonb_object_agg(k.detail, k.n)
                   from (select s.detail, sum(s.attempts) as n from sluice.totals_days s
                          where s.provider = t.provider and s.model = t.model and s.class = 'soft_failure'
                          group by s.detail having sum(s.attempts) > 0) k), '{}') as soft_failures,
       round(sum(cost_nanos) / 1e9, 9) as cost,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals_days t where provider <> '' and model <> '' group by provider, model
having sum(attempts) filter (where class in ('', 'soft_failure')) > 0;

comment on view sluice.quality is
    'How good the answers of each target are: how many were accepted, how many of those after a repair, which soft '
    'failures the others had (as JSON), and the dollars per accepted answer.';

create or replace view sluice.latency as
select s.provider, s.model, s.answers, s.mean_ms,
       sluice.histogram_at(s.latency, 0.5)::integer as p50_ms, sluice.histogram_at(s.latency, 0.95)::integer as p95_ms,
       sluice.histogram_at(s.latency, 0.99)::integer as p99_ms,
       sluice.histogram_at(s.first_byte, 0.5)::integer as first_byte_p50_ms
  from (select t.provider, t.model, sum(t.attempts)::bigint as answers,
               (sum(t.total_ms) / sum(t.attempts))::bigint as mean_ms,
               sluice.histogram_sum(string_to_array(nullif(string_agg(array_to_string(t.latency, ','), ',')
                   filter (where t.latency <> '{}'), ''), ',')::bigint[]) as latency,
               sluice.histogram_sum(string_to_array(nullif(string_agg(array_to_string(t.first_byte, ','), ',')
                   filter (where t.first_byte <> '{}'), ''), ',')::bigint[]) as first_byte
          from sluice.totals_all t
         where t.class = '' and t.attempts <> 0 and t.hour >= date_trunc('hour', now()) - interval '23 hours'
         group by t.provider, t.model having sum(t.attempts) > 0) s;

comment on view sluice.latency is
    'How long accepted answers of the last 24 hours took, in milliseconds, by provider and model. The mean is exact; '
    'the percentiles come from histograms and are at most 4.9 % beside the truth.';

create or replace view sluice.reasks as
select provider, model, sum(reasks)::bigint as reasks,
       coalesce(sum(reasks) filter (where class = ''), 0)::bigint as accepted,
       round(sum(reask_cost_nanos) / 1e9, 9) as cost, sum(reask_unpriced)::bigint as unpriced
  from sluice.totals_all
 where reasks <> 0 and hour >= date_trunc('hour', now()) - interval '23 hours' group by provider, model
having sum(reasks) > 0;

create view sluice.cache_savings as
select date_trunc('day', hour) as day, route, project, sum(answers)::bigint as answers,
       round(sum(saved_nanos) / 1e9, 9) as saved, sum(unpriced)::bigint as unpriced
  from sluice.cache_use group by 1, 2, 3;

comment on view sluice.cache_savings is
    'Answers that the caches of routes gave again, by day, route and project, and the dollars that their first calls '
    'had cost. unpriced: answers whose first cost is unknown.';

create or replace view sluice.attempts with (security_barrier) as
select a.job_id, a.number, a.round, a.provider, a.model, a.rung, a.started_at, a.ended_at, a.first_byte_ms,
       a.total_ms, a.accepted, a.class, a.detail, a.http_status, a.code, a.message, a.retry_at, a.request_id,
       a.model_served, a.finish, a.usage, a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens,
       a.output_tokens, a.reasoning_tokens, round(a.cost_nanos / 1e9, 9) as cost,
       round(a.uncertain_nanos / 1e9, 9) as uncertain_cost, a.price, a.decision, a.answer, j.route, j.project, j.batch,
       a.placeholder, a.service_tier, round(a.reported_cost_nanos / 1e9, 9) as reported_cost, a.cost_source, a.notes,
       a.reask_of, round(a.computed_cost_nanos / 1e9, 9) as computed_cost, a.cache_write_1h_tokens, a.cost_differs,
       a.repriced_at, a.repriced_from, a.instead_of, a.instead_why, round(a.instead_nanos / 1e9, 9) as instead_cost
  from sluice.attempt a left join sluice.job j on j.id = a.job_id and a.round >= 0
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.attempts.instead_of is
    'The target that its job would have taken first, where the call went to another one; NULL: it went there.';
comment on column sluice.attempts.instead_cost is
    'Dollars that the same tokens would have cost there; NULL: not known.';

-- ------------------------------------------------------------------------------------------------- rights
grant execute on function sluice.latency_class, sluice.latency_of, sluice.histogram_sum, sluice.histogram_at,
    sluice.failure_code to public;

do $$ begin
    if to_regrole('sluice_reporter') is not null then
        grant select on sluice.totals_all, sluice.totals_days, sluice.cost_by_login, sluice.failure_codes,
            sluice.failure_sample, sluice.fallback_paths, sluice.quality, sluice.cache_savings, sluice.tally,
            sluice.tally_hour_all, sluice.tally_day_all to sluice_reporter;
    end if;
    if to_regrole('sluice_worker') is not null then
        grant select, insert, update, delete on sluice.tally_hour_all, sluice.tally_day_all, sluice.failure_sample
            to sluice_worker;
        grant select on sluice.totals_all, sluice.totals_days, sluice.cost_by_login, sluice.failure_codes,
            sluice.fallback_paths, sluice.quality, sluice.cache_savings to sluice_worker;
    end if;
end $$;
