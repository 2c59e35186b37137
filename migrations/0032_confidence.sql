-- Cascades: how sure a rung is of its answer, and answers that were taken although their rungs were not sure enough.
--
-- Columns are added at the end, and none has to be written: workers of earlier versions book attempts and endings as
-- before. They take the answers of a cascade that this version has rejected for answers that are empty.
set local lock_timeout = '5s';

alter table sluice.attempt add column confidence double precision;

comment on column sluice.attempt.confidence is
    'How sure the rung was of its answer, by the measure of its route''s cascade: a probability, or the number in a '
    'field of the answer. NULL: the route has no cascade, or the answer does not say.';

alter table sluice.result
    add column confidence     double precision,
    add column low_confidence boolean not null default false;

comment on column sluice.result.confidence is
    'How sure the rung was of the answer, by the measure of its route''s cascade. NULL: not known.';
comment on column sluice.result.low_confidence is
    'The rung was not sure enough of the answer, and no surer one came.';

-- The views and functions are what they were, with these columns at their ends.
do $$
declare
    name text;
    columns text;
    definition text;
    changed text;
    note text;
begin
    -- With every name in its schema, whoever reads the definitions.
    perform set_config('search_path', 'pg_catalog', true);
    foreach name in array array['attempt', 'result'] loop
        columns := case name when 'attempt' then E',\n    a.confidence'
                             else E',\n    r.confidence,\n    r.low_confidence' end;
        definition := pg_get_viewdef(format('sluice.%ss', name)::regclass, true);
        changed := regexp_replace(definition, E'\n\\s+FROM sluice\\.' || name || ' ',
                                  columns || E'\n   FROM sluice.' || name || ' ');
        if changed = definition then
            raise exception 'sluice.% is written in a way that this migration does not know', name || 's';
        end if;
        execute format('create or replace view sluice.%ss with (security_barrier) as %s', name, changed);
    end loop;
    foreach name in array array['own_results', 'own_results_of'] loop
        definition := pg_get_functiondef(format('sluice.%s', name)::regproc);
        note := obj_description(format('sluice.%s', name)::regproc, 'pg_proc');
        changed := replace(replace(definition, 'code text, message text)',
                                   'code text, message text, confidence double precision, low_confidence boolean)'),
                           'f.code, f.message',
                           'f.code, f.message, r.confidence, coalesce(r.low_confidence, false)');
        if position('low_confidence boolean)' in changed) = 0 or position('r.low_confidence' in changed) = 0 then
            raise exception 'sluice.% is written in a way that this migration does not know', name;
        end if;
        execute format('drop function sluice.%s', name);
        execute changed;
        execute format('comment on function sluice.%s is %L', name, note);
    end loop;
end
$$;

comment on column sluice.attempts.confidence is
    'How sure the rung was of its answer, by the measure of its route''s cascade. NULL: not known.';
comment on column sluice.results.confidence is
    'How sure the rung was of the answer, by the measure of its route''s cascade. NULL: not known.';
comment on column sluice.results.low_confidence is
    'The rung was not sure enough of the answer, and no surer one came.';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.own_results, sluice.own_results_of from public;
