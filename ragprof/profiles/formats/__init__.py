"""File formats of profiles, one module each: `dumps` writes and `loads` reads."""
