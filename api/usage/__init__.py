"""Usage: how many tokens, requests and errors, by key, tenant, model and hour."""
