"""Who holds what: an append-only journal of transfers between grants, and the holds of running calls."""
