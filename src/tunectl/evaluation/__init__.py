"""Floor 4: measures, comparisons, verdicts and their report. Pure."""
