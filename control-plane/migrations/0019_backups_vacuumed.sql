-- Backups are never deleted, and each leaves five dead rows on its way from begun to pruned. A fifth of a table that only grows
-- are two and a half days of them with two months of backups, and two weeks with a year: so long they stayed, in
-- all its indexes too, and whoever counted the day's looked each one up in the table.
ALTER TABLE cloud_pod_backups SET (autovacuum_vacuum_scale_factor = 0.01);
