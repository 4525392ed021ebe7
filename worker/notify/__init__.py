"""The room that tells the hospital: words, the structured report, and the ways to deliver it."""
