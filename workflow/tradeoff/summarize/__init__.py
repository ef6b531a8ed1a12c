"""Raw facts to tidy tables: every statistic."""
