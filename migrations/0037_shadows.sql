-- Shadow traffic: a sampled share of a route's accepted jobs is also sent to another target (`shadow` of a route). Such
-- a job is an ordinary job of the route `shadow:ROUTE`, and is in no batch; this table says whose shadow it is.
--
-- Workers of earlier versions make no shadows, and leave these jobs to others: they do not know the route.
set local lock_timeout = '5s';

create table sluice.shadow (
    job_id    bigint primary key,
    shadow_id bigint not null unique,
    route     text not null,
    target    text not null,
    made_at   timestamptz not null default now()
);

create index shadow_made_at on sluice.shadow (made_at);

comment on table sluice.shadow is
    'Accepted jobs that another target was asked for, too. One row for each; read sluice.shadows.';

-- Called by the settlement that ends the jobs, so that a job has one shadow, or none. A fault here must not take the
-- answers with it: its code is returned, and nothing is written.
create function sluice.cast_shadows(jobs bigint[], routes text[], targets text[], within interval) returns text
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    with chosen as (
        select j.id as job_id, substr(s.shadow_route, 8) as route, s.shadow_route, s.target, j.project, j.enqueued_by,
               j.request
          from unnest(cast_shadows.jobs, cast_shadows.routes, cast_shadows.targets) s(job_id, shadow_route, target)
               join sluice.job j on j.id = any (array[s.job_id])
         order by j.id
    ), kept as (
        insert into sluice.shadow (job_id, shadow_id, route, target)
             select c.job_id, nextval('sluice.job_id_seq'), c.route, c.target from chosen c
        on conflict on constraint shadow_pkey do nothing
        returning job_id, shadow_id
    )
    insert into sluice.job (id, route, project, enqueued_by, priority, deadline, request)
         select k.shadow_id, c.shadow_route, c.project, c.enqueued_by, -1000, now() + cast_shadows.within, c.request
           from kept k join chosen c on c.job_id = k.job_id;
    return null;
exception when others then
    return sqlstate;
end
$$;

comment on function sluice.cast_shadows is
    'For workers: enqueues the shadows of accepted jobs. Returns the code of an error that has kept it from that.';

-- ------------------------------------------------------------------------------------------------- who sees them
-- An application reads the jobs that it has enqueued: shadows are none of these.
do $$
declare
    view text;
    definition text;
    changed text;
begin
    foreach view in array array['sluice.results', 'sluice.jobs', 'sluice.attempts'] loop
        definition := pg_get_viewdef(view::regclass);
        changed := replace(definition, 'j.enqueued_by = SESSION_USER',
                           'j.enqueued_by = SESSION_USER and not starts_with(j.route, ''shadow:'')');
        if changed = definition then
            raise exception 'the view % filters by login in a way that this migration does not know', view;
        end if;
        execute format('create or replace view %s with (security_barrier) as %s', view, changed);
    end loop;
end
$$;

-- ------------------------------------------------------------------------------------------------- what they say
-- What counts of an answer: its content, as JSON where it is JSON, and the calls of tools without their ids. NULL:
-- nothing that could be compared, as of embeddings.
create function sluice.substance(response jsonb) returns jsonb
    language sql immutable parallel safe
    begin atomic
        select case when response #> '{choices,0,message}' is not null then
                   jsonb_build_object(
                       'content', coalesce(sluice.as_json(response #>> '{choices,0,message,content}'),
                                           to_jsonb(btrim(response #>> '{choices,0,message,content}', E' \t\r\n'))),
                       'tools', (select jsonb_agg(jsonb_build_array(
                                            c.it #> '{function,name}',
                                            coalesce(sluice.as_json(c.it #>> '{function,arguments}'),
                                                     c.it #> '{function,arguments}')) order by c.place)
                                   from jsonb_array_elements(
                                            case jsonb_typeof(response #> '{choices,0,message,tool_calls}')
                                                when 'array' then response #> '{choices,0,message,tool_calls}'
                                                else '[]' end) with ordinality c(it, place)))
               end;
    end;

comment on function sluice.substance is
    'What counts of an answer where two are compared: content, as JSON where it is JSON, and calls of tools.';

-- How many members two JSON objects have together, and in how many of them they agree. NULL: one is no object.
create function sluice.agreement(one jsonb, other jsonb, out members integer, out agreed integer)
    language sql immutable parallel safe
    begin atomic
        select case when jsonb_typeof(one) = 'object' and jsonb_typeof(other) = 'object' then k.members end,
               case when jsonb_typeof(one) = 'object' and jsonb_typeof(other) = 'object' then k.agreed end
          from (select count(*)::integer as members,
                       (count(*) filter (where one -> n.name = other -> n.name))::integer as agreed
                  from (select jsonb_object_keys(case jsonb_typeof(one) when 'object' then one else '{}' end) as name
                         union
                        select jsonb_object_keys(case jsonb_typeof(other) when 'object' then other else '{}' end)) n) k;
    end;

comment on function sluice.agreement is
    'How many members two JSON objects have together, and in how many of them they agree. NULL: one is no object.';

create view sluice.shadows as
select s.job_id, s.shadow_id, s.route, s.target, s.made_at, j.project, j.batch, j.enqueued_by,
       r.provider || '/' || r.model as answered_by,
       case when w.job_id is null then 'waiting' when w.attempts = 0 then 'not asked' else w.state end as shadow_state,
       w.error_class as shadow_class,
       c.one = c.other as same, g.members as fields, g.agreed as fields_same,
       round(r.cost_nanos / 1e9, 9) as cost, round(w.cost_nanos / 1e9, 9) as shadow_cost,
       (select a.total_ms from sluice.attempt a where a.job_id = s.job_id and a.accepted
         order by a.number desc limit 1) as ms,
       (select a.total_ms from sluice.attempt a where a.job_id = s.shadow_id and a.accepted
         order by a.number desc limit 1) as shadow_ms
  from sluice.shadow s
       join sluice.job j on j.id = s.job_id
       join sluice.job k on k.id = s.shadow_id
       left join sluice.result r on r.job_id = s.job_id
       left join sluice.result w on w.job_id = s.shadow_id
       left join lateral (select sluice.substance(r.response) as one, sluice.substance(w.response) as other
                           where w.state = 'succeeded') c on true
       left join lateral sluice.agreement(c.one -> 'content', c.other -> 'content') g on true;

comment on view sluice.shadows is 'Jobs that another target was asked for, too, and how the two answers compare.';
comment on column sluice.shadows.shadow_state is
    'succeeded, failed, cancelled, waiting, or not asked: it ended before its target was called.';
comment on column sluice.shadows.same is
    'Whether both answers say the same: JSON by value, text but for white space around it. NULL: not comparable.';
comment on column sluice.shadows.fields is
    'Members that two answers of JSON objects have together; fields_same: those in which they agree.';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.cast_shadows from public;
