"""What the figures in README and docs come from. Timings live here, never in a test."""
