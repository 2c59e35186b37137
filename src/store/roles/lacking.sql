-- The rights that roles need and have not.
-- For each right $1 the role, $2 the kind of object, $3 the right, $4 the object's name
with needed as (
    select n.*, to_regrole(n.role)::oid as grantee, to_regclass('sluice.' || n.name)::oid as relation
      from unnest($1::text[], $2::text[], $3::text[], $4::text[]) with ordinality
               n(role, kind, privilege, name, ordinal)
     where to_regrole(n.role) is not null
), judged as (
    select n.ordinal, n.role,
           case n.kind when 'column' then n.privilege || ' (' || n.name || ')'
                       else n.privilege end as privilege,
           case n.kind when 'schema' then 'schema ' || n.name
                       when 'column' then 'sluice.job'
                       when 'sequence' then 'sequence sluice.' || n.name
                       when 'function' then 'function ' || p.oid::regprocedure::text
                       else 'sluice.' || n.name end as object,
           -- Each kind has its own words for rights, and refuses those of the others.
           case n.kind
               when 'schema' then has_schema_privilege(n.grantee, to_regnamespace(n.name)::oid, n.privilege)
               when 'table' then has_table_privilege(n.grantee, n.relation, n.privilege)
               when 'column'
                   then has_column_privilege(n.grantee, to_regclass('sluice.job')::oid, n.name, n.privilege)
               when 'sequence' then has_sequence_privilege(n.grantee, n.relation, n.privilege)
               when 'function' then has_function_privilege(n.grantee, p.oid, n.privilege)
           end as has
      from needed n
           left join pg_proc p on n.kind = 'function' and p.pronamespace = to_regnamespace('sluice')
                              and p.proname = n.name
)
select role as "role!", privilege as "privilege!", object as "object!" from judged where not has
 order by ordinal, object
