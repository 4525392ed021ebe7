"""What the radiologist and the administrator look at."""
