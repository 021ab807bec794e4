"""Who asks, who answers, who is told: HTTP, upstreams, keys."""
