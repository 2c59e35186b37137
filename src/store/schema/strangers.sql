-- Names the roles that may change the schema and that this login does not trust.
select string_agg(distinct case f.role when 0 then 'every role'
                                       else quote_ident(pg_get_userbyid(f.role)) end, ', ')
     from pg_namespace n
    cross join lateral (
              select n.nspowner as role
               union all
              select c.relowner from pg_class c where c.relnamespace = n.oid
               union all
              select p.proowner from pg_proc p where p.pronamespace = n.oid
               union all
              select t.typowner from pg_type t where t.typnamespace = n.oid
               union all
              select a.grantee from aclexplode(n.nspacl) a where a.privilege_type = 'CREATE') f
    where n.nspname = 'sluice'
      and not exists (
          select from pg_roles r
           cross join (select m.oid, m.rolsuper from pg_roles m where m.rolname = current_user) me
           where r.oid = f.role
             and (r.rolsuper or r.oid = me.oid
                  or not me.rolsuper and pg_has_role(me.oid, r.oid, 'member')
                  or exists (select from pg_auth_members a where a.member = me.oid and a.roleid = r.oid)))
