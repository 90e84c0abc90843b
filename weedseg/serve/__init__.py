"""The service: HTTP around the edge runtime, jobs, keys and tenants."""
