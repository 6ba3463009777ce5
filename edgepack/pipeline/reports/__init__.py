"""Reports made from results: the page of `compare`, and SARIF for code scanning."""
