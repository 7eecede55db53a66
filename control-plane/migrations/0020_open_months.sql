-- Which months are open is asked every minute, of a table that keeps every pod's months for ever.
CREATE INDEX cloud_pod_usage_monthly_open ON cloud_pod_usage_monthly (year_month) WHERE closed_at IS NULL;
