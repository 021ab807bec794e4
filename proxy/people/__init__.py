"""Who has an account, and which keys act for it."""
