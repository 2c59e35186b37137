-- What the prompt caches of providers save: how many tokens were written into them, and the dollars that reading from
-- them saved, less what writing cost more than plain input. By call, and in the sums.
--
-- Workers of earlier versions book calls and append sums as before: the tokens that these read from a cache are in the
-- sums, and what that saved is not known. They fold no more, since they would drop the new sums: the turn that they
-- take is gone. Calls that were booked before are left as they are.
set local lock_timeout = '5s';

alter table sluice.attempt add column cache_saved_nanos bigint;

comment on column sluice.attempt.cache_saved_nanos is
    'What the provider''s prompt cache saved, in billionths of a dollar: what all input would have cost as plain '
    'input, less what it cost; negative where writing cost more. NULL: nothing was cached, its price is unknown, or '
    'the call was booked by an earlier version.';

do $$
declare
    sums text;
begin
    foreach sums in array array['tally', 'tally_hour', 'tally_hour_all', 'tally_hour_target', 'tally_day_all'] loop
        execute format('alter table sluice.%I
            add column cache_write_tokens  bigint not null default 0,
            -- Tokens read and written whose prices are known: what cache_saved_nanos is about.
            add column cache_priced_tokens bigint not null default 0,
            add column cache_saved_nanos   bigint not null default 0', sums);
    end loop;
end
$$;

-- The turn at folding has another name, so that workers of earlier versions find none.
delete from sluice.turn where name = 'fold_all_sums';
insert into sluice.turn (name) values ('fold_cached_sums');

-- ------------------------------------------------------------------------------------------------- views
-- The views are what they were, with the new columns at their ends.
create or replace view sluice.totals as
select hour, route, project, batch, provider, model, class, detail, enqueued, succeeded, failed, cancelled,
       attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos,
       unpriced, total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced,
       extra_nanos, extra_unknown, latency, first_byte, cache_write_tokens, cache_priced_tokens, cache_saved_nanos
  from sluice.tally
 union all
select hour, route, project, batch, provider, model, class, detail, enqueued, succeeded, failed, cancelled,
       attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos,
       unpriced, total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced,
       extra_nanos, extra_unknown, latency, first_byte, cache_write_tokens, cache_priced_tokens, cache_saved_nanos
  from sluice.tally_hour;

create or replace view sluice.totals_all as
select hour, route, project, provider, model, class, detail, enqueued, succeeded, failed, cancelled,
       attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos,
       unpriced, total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced,
       extra_nanos, extra_unknown, latency, first_byte, cache_write_tokens, cache_priced_tokens, cache_saved_nanos
  from sluice.tally
 union all
select hour, route, project, provider, model, class, detail, enqueued, succeeded, failed, cancelled,
       attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos,
       unpriced, total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced,
       extra_nanos, extra_unknown, latency, first_byte, cache_write_tokens, cache_priced_tokens, cache_saved_nanos
  from sluice.tally_hour_all;

create or replace view sluice.totals_days as
select date_trunc('day', hour, 'UTC') as hour, route, project, provider, model, class, detail, enqueued, succeeded,
       failed, cancelled, attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos,
       uncertain_nanos, unpriced, total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos,
       reask_unpriced,
       extra_nanos, extra_unknown, latency, first_byte, cache_write_tokens, cache_priced_tokens, cache_saved_nanos
  from sluice.tally
 union all
select hour, route, project, provider, model, class, detail, enqueued, succeeded, failed, cancelled,
       attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos,
       unpriced, total_ms, login, code, instead_of, instead_why, repaired, reasks, reask_cost_nanos, reask_unpriced,
       extra_nanos, extra_unknown, latency, first_byte, cache_write_tokens, cache_priced_tokens, cache_saved_nanos
  from sluice.tally_day_all;

do $$
declare
    definition text;
    changed text;
begin
    -- With every name in its schema, whichever login reads the definition.
    perform set_config('search_path', 'pg_catalog', true);
    definition := pg_get_viewdef('sluice.attempts'::regclass, true);
    changed := regexp_replace(definition, E'\n\\s+FROM sluice\\.attempt ',
                              E',\n    round(a.cache_saved_nanos / 1e9, 9) as cache_saved\n   FROM sluice.attempt ');
    if changed = definition then
        raise exception 'sluice.attempts is written in a way that this migration does not know';
    end if;
    execute format('create or replace view sluice.attempts with (security_barrier) as %s', changed);
end
$$;

comment on column sluice.attempts.cache_saved is
    'Dollars that the provider''s prompt cache saved; negative where writing cost more. NULL: nothing was cached, or '
    'it is not known.';

create view sluice.prompt_caches as
select date_trunc('day', t.hour) as day, t.route, t.project, t.provider, t.model, sum(t.attempts)::bigint as attempts,
       sluice.capped(sum(t.input_tokens)) as input_tokens, sluice.capped(sum(t.cached_tokens)) as cached_tokens,
       sluice.capped(sum(t.cache_write_tokens)) as written_tokens,
       round(sum(t.cached_tokens) / nullif(sum(t.input_tokens), 0), 4) as hit_rate,
       case when sum(t.cache_priced_tokens) > 0 or sum(t.cached_tokens) + sum(t.cache_write_tokens) = 0
            then round(sum(t.cache_saved_nanos) / 1e9, 9) end as saved,
       sluice.capped(sum(t.cached_tokens) + sum(t.cache_write_tokens) - sum(t.cache_priced_tokens)) as unpriced_tokens
  from sluice.totals_all t where t.provider <> '' group by 1, 2, 3, 4, 5 having sum(t.attempts) <> 0;

comment on view sluice.prompt_caches is
    'What the prompt caches of providers did, by day, route, project and target: tokens read from them (hit_rate: '
    'their share of all input) and written into them, and the dollars saved, less what writing cost more. '
    'unpriced_tokens: cached tokens whose price is unknown, and which are not in saved.';

-- ------------------------------------------------------------------------------------------------- rights
do $$ begin
    if to_regrole('sluice_reporter') is not null then
        grant select on sluice.prompt_caches to sluice_reporter;
    end if;
    if to_regrole('sluice_worker') is not null then
        grant select on sluice.prompt_caches to sluice_worker;
    end if;
end $$;
