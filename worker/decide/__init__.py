"""From probabilities to an urgency, by the site's policy. Pure functions: no clock, no database, no network."""
