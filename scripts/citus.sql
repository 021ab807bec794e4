-- Spreads a ledger in PostgreSQL over the nodes of a Citus cluster, by account. What to know first: docs/operating.md.
-- Run once, on the coordinator, after a server has made the tables and was stopped:
--     psql --single-transaction -f scripts/citus.sql
-- A test compares the tables named here with the ledger's.

-- Row triggers that look at rows of the same account alone; the server and the workers need this setting too, for good.
SET citus.enable_unsafe_triggers TO on;

-- Small, and joined with holds and accounts: a copy on every node.
SELECT create_reference_table('ledger_lease');
SELECT create_reference_table('ledger_clock');

-- All that an account has lies on one node, together.
SELECT create_distributed_table('ledger_account', 'account_id');
SELECT create_distributed_table('ledger_adjustment', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_claim', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_grant', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_hold', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_limit', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_receipt', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_refund', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_run', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_seal', 'account_id', colocate_with => 'ledger_account');
SELECT create_distributed_table('ledger_transfer', 'account_id', colocate_with => 'ledger_account');

-- The proxy's own tables (people, keys and their directory, what operators did) stay on the coordinator as they are:
-- they are changed in serializable transactions, which are that on one node only.
