-- Answers as text that is JSON, in a second column: the server takes that in a third of the time that `jsonb` takes it.
-- Everything that reads answers reads the one column or the other.
--
-- Workers and commands of the version before know the first column only. Workers of theirs that go on write it, and all
-- is well. Their commands would find no answer in the second one. So workers write it only once
-- `sluice.schema_support` says that every binary has to know this version: from now on where there is no result yet and
-- no worker at work, and else a day after this migration, when no worker of an earlier version is left
-- (`sluice.worker.schema_version`). Within that day the version before can be installed again.
set local lock_timeout = '5s';

alter table sluice.result add column response_json json compression lz4;

comment on column sluice.result.response_json is
    'The whole answer as an OpenAI chat completion, as text, where response is NULL. Read sluice.results.';

alter table sluice.worker add column schema_version bigint not null default 0;

comment on column sluice.worker.schema_version is
    'The version of the schema that its binary brings; 0: an earlier one than 42.';

do $$
declare
    one constant text := 'coalesce(r.response, r.response_json::jsonb)';
    name text;
    definition text;
    changed text;
    made oid;
begin
    -- With every name in its schema, in whatever session the definitions are read.
    perform set_config('search_path', 'pg_catalog', true);
    definition := pg_get_viewdef('sluice.results'::regclass, true);
    changed := regexp_replace(definition, '^(\s*)r\.response,$', '\1' || one || ' AS response,', 'n');
    changed := regexp_replace(changed, '\mr\.response #>>', one || ' #>>', 'g');
    if changed !~ 'AS response,' or changed ~ '[^(]r\.response\M' then
        raise exception 'sluice.results is written in a way that this migration does not know';
    end if;
    execute format('create or replace view sluice.results with (security_barrier) as %s', changed);
    definition := pg_get_viewdef('sluice.shadows'::regclass, true);
    changed := regexp_replace(definition, '\m(substance\()([rw])\.response\)',
                              '\1coalesce(\2.response, \2.response_json::jsonb))', 'g');
    if changed ~ 'substance\([rw]\.response\)' or changed = definition then
        raise exception 'sluice.shadows is written in a way that this migration does not know';
    end if;
    execute format('create or replace view sluice.shadows as %s', changed);
    foreach name in array array['own_results', 'own_results_of', 'ask_cache'] loop
        made := format('sluice.%s', name)::regproc::oid;
        definition := pg_get_functiondef(made);
        changed := replace(definition, 'r.response::text', 'coalesce(r.response::text, r.response_json::text)');
        changed := replace(changed, 'r.response is not null',
                           'coalesce(r.response::text, r.response_json::text) is not null');
        if changed = definition or changed ~ '[^(]\mr\.response\M' then
            raise exception 'sluice.% is written in a way that this migration does not know', name;
        end if;
        execute changed;
    end loop;
end
$$;

update sluice.schema_support set oldest = 42
 where oldest < 42 and not exists (select from sluice.result)
   and not exists (select from sluice.worker w where w.state = 'live');
