"""The neutral Profile model, its formats, and comparison of profiles."""
