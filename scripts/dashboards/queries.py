"""PromQL that panels have in common. Every expression looks at what the reader has chosen."""

OWN = 'job=~"$job",instance=~"$instance"'
BY = "$__rate_interval"


def each(metric: str, labels: str = "") -> str:
    return f"{metric}{{{OWN}{labels}}}"


def total(metric: str, *by: str) -> str:
    return f"sum{_by(by)} ({each(metric)})"


def rate(metric: str, *by: str, labels: str = "") -> str:
    return f"sum{_by(by)} (rate({each(metric, labels)}[{BY}]))"


def mean(metric: str) -> str:
    """Of what a histogram has counted."""
    return f"{rate(f'{metric}_sum')} / {rate(f'{metric}_count')}"


def quantile(share: float, metric: str, *by: str) -> str:
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', *by, 'le')})"


def quantiles(metric: str) -> dict[str, str]:
    return {f"p{share * 100:.0f}": quantile(share, metric) for share in (0.5, 0.95, 0.99)}


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
