-- Counts finished parts of the tables: all, those due to be dropped after $1 seconds, and how late the next is ($2).
with past as materialized (
    select substring(c.relname from '_p(\d+)$')::bigint as part
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'sluice.job'::regclass
       and substring(c.relname from '_p(\d+)$')::bigint
         < (select last_value / 10000000 from sluice.job_id_seq)
), ended as (
    select p.part, r.finished_at
      from past p cross join lateral (
               select j.id from sluice.job j
                where j.id >= p.part * 10000000 and j.id < (p.part + 1) * 10000000
                order by j.id desc limit 1) l
           join sluice.result r on r.job_id = l.id
)
select (select count(*) from past) as "past!",
       (select count(*) from ended where finished_at < now() - make_interval(secs => $1)) as "due!",
       (select extract(epoch from now() - make_interval(secs => $2) - f.created_at)::bigint
          from sluice.job_id_seq s cross join lateral (
               select j.created_at from sluice.job j where j.id >= s.last_value / 10000000 * 10000000
                order by j.id limit 1) f) as late,
       (select count(*) from sluice.retired) as "dropped!"
