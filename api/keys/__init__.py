"""Who calls: keys, the tenants that they belong to, and what each may do."""
