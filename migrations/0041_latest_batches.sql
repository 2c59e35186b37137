-- The list of batches, those in which something happened last first, is read a page at a time along this index. Without
-- it each page added up the sums of all batches that there ever were.
--
-- Workers of earlier versions write sums as before; they neither know nor need the index.
set local lock_timeout = '5s';

create index tally_hour_latest on sluice.tally_hour (hour desc, batch) where batch <> '';
