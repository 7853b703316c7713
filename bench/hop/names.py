"""What those that are measured are called in a run's records."""

STUB = "stub alone"
API = "API server"
LITELLM = "LiteLLM, no key"
LITELLM_KEY = "LiteLLM, its key"
