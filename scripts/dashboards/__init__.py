"""The Grafana dashboards of both charts: their panels, and how a panel becomes Grafana's JSON."""
