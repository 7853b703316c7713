"""The model host: serves one language model over HTTP. Never imports `api`."""
