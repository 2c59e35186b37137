-- Jobs of many lanes leave `ready` from pages all over the table, one at a time. On a page that is quite full the server
-- tidies up after each of them, which costs more than taking the job. With a tenth of each page left free it leaves that
-- to vacuum, which visits each page once. Pages that exist stay as they are. The lock lets all workers go on.
alter table sluice.ready set (fillfactor = 90);
