"""Reports: the HTML page of `compare`, and the findings of `check` as SARIF for code scanning."""
